"""What there is in a place of archives: a small record for each volume and each snapshot, beside the archives.

    index/volumes/<volume id>                put before the volume's archive, deleted after it
    index/snapshots/<volume id>.<generation> a generation that is held on to
    index/clones/<snapshot id>/<volume id>   a volume that builds on it
    volumes/<volume id>/...                  the archive itself

An id begins with wave, migration and run, so that a list of one run's things reads no others.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, ValidationError

from storage_backends.base import Kind, Labels, Resource, State
from storage_backends.errors import Conflict, Corrupted, NotFound
from wavelift.stores.base import NotThere, Store

_KINDS = {Kind.VOLUME: "index/volumes/", Kind.SNAPSHOT: "index/snapshots/"}
_CLONES = "index/clones/"
# With digest and generation no part of a key gets longer than stores take.
_READABLE = 160
_DIGEST = 12
_MAX_RECORD = 1 << 16


class Record(BaseModel):
    """A volume or a snapshot. `origin` is the snapshot that a clone was made of; `root`, in hex, the content of a
    snapshot. `deleting`: it is going, and what is left of it with it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tags: dict[str, str]
    name: str
    size_gib: int
    origin: str | None = None
    root: str = ""
    deleting: bool = False

    def resource(self, kind: Kind, resource_id: str) -> Resource:
        state, status = (State.PENDING, "deleting") if self.deleting else (State.READY, "available")
        return Resource(kind, resource_id, state, status, self.name, self.size_gib, tags=self.tags)


def volume_id(labels: Labels) -> str:
    """The same for the same labels, and for no others. Of a store's letters, and readable."""
    digest = hashlib.sha256(json.dumps(labels.tags(), sort_keys=True).encode()).hexdigest()[:_DIGEST]
    return f"{_readable(labels)}.{digest}"


def snapshot_id(volume: str, generation: int) -> str:
    return f"{volume}.{generation}"


def parts_of(snapshot: str) -> tuple[str, int]:
    """Volume and generation of a snapshot's id."""
    volume, _, generation = snapshot.rpartition(".")
    return volume, int(generation)


class Index:
    """All methods raise `StoreError`, and Corrupted for a record that cannot be read."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, kind: Kind, resource_id: str) -> Record:
        """Also one that is being deleted. Raises NotFound."""
        key = _key(kind, resource_id)
        record = None if key is None else self._read(key)
        if record is None:
            raise NotFound(
                f"{kind.value.capitalize()} {resource_id} does not exist in {self._store.name}.",
                "It may have been deleted by hand.",
            )
        return record

    def lasting(self, kind: Kind, resource_id: str) -> Record:
        """Raises NotFound, and Conflict for one that is being deleted."""
        record = self.find(kind, resource_id)
        if record.deleting:
            raise Conflict(
                f"{kind.value.capitalize()} {resource_id} is being deleted.",
                "Delete it once more, to the end; then it can be made anew.",
            )
        return record

    def put(self, kind: Kind, resource_id: str, record: Record, *, new: bool = False) -> None:
        """With `new` raises `AlreadyThere`."""
        self._store.put(_KINDS[kind] + resource_id, record.model_dump_json().encode(), new=new)

    def remove(self, kind: Kind, resource_id: str) -> None:
        self._store.delete([_KINDS[kind] + resource_id])

    def snapshots_of(self, volume: str) -> list[str]:
        start = _KINDS[Kind.SNAPSHOT]
        names = (entry.key.removeprefix(start) for entry in self._store.list(f"{start}{volume}."))
        return [name for name in names if parts_of(name)[0] == volume]

    def clones_of(self, snapshot: str) -> list[str]:
        prefix = f"{_CLONES}{snapshot}/"
        return [entry.key.removeprefix(prefix) for entry in self._store.list(prefix)]

    def add_clone(self, snapshot: str, volume: str) -> None:
        self._store.put(f"{_CLONES}{snapshot}/{volume}", b"")

    def remove_clone(self, snapshot: str, volume: str) -> None:
        self._store.delete([f"{_CLONES}{snapshot}/{volume}"])

    def list(self, kind: Kind, labels: Labels) -> Iterator[tuple[str, Record]]:
        """Those that carry all of these labels, with their ids."""
        wanted = labels.tags().items()
        run = Labels(labels.wave, labels.migration, labels.run)
        for entry in self._store.list(_KINDS[kind] + _readable(run)):
            record = self._read(entry.key)
            # It may have gone since it was listed.
            if record is not None and wanted <= record.tags.items():
                yield entry.key.removeprefix(_KINDS[kind]), record

    def _read(self, key: str) -> Record | None:
        try:
            data = self._store.get(key, 0, _MAX_RECORD)
        except NotThere:
            return None
        try:
            return Record.model_validate_json(data)
        except ValidationError as error:
            raise Corrupted(
                f"{key} of {self._store.name} is damaged: {error.errors()[0]['msg']}.",
                "Bring the object back from another copy, or an older version of it.",
            ) from error


def _key(kind: Kind, resource_id: str) -> str | None:
    """None where nothing of that id can be."""
    known = kind in _KINDS and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=-]*", resource_id)
    return _KINDS[kind] + resource_id if known else None


def _readable(labels: Labels) -> str:
    return re.sub(r"[^A-Za-z0-9._=-]", "_", labels.name())[:_READABLE]
