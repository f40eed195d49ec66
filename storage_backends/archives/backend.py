"""A place of archives as a backend: a volume is an archive, a snapshot a generation of it that is held on to.

Nothing here moves blocks: agents and gateways open what `sink` and `source` describe. A thing is recorded before it is
made, and forgotten after it is gone, so that whatever a crash leaves is found by its labels. Of two that contradict
each other at the same moment, each looks again after it has written: one at least sees the other, and gives way.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from typing import Literal, Protocol

from storage_backends.archives.errors import translated
from storage_backends.archives.index import Index, Record, parts_of, snapshot_id, volume_id
from storage_backends.base import Capabilities, Kind, Labels, Resource, VolumeSpec
from storage_backends.errors import Conflict, Corrupted, InvalidRequest, NotFound
from wavelift.archive.archive import Archive
from wavelift.archive.descriptor import BucketArchive, DisksArchive
from wavelift.archive.errors import ArchiveError, NoArchive
from wavelift.archive.keys import archive_secret, derived
from wavelift.archive.layout import Origin
from wavelift.archive.sweep import sweep
from wavelift.stores.base import AlreadyThere, Store
from wavelift.stores.base import Corrupted as DamagedObject
from wavelift.stores.prefixed import PrefixedStore

log = logging.getLogger(__name__)
_POLL_SECONDS = 1.0


class Place(Protocol):
    """Where archives lie. Both methods raise `StoreError`, BackendError, OSError."""

    @property
    def carrier(self) -> Literal["bucket", "disks"]: ...

    def store(self) -> Store:
        """All that lies there, for the control half."""

    def descriptor(self, prefix: str, key: str, *, writes: bool) -> BucketArchive | DisksArchive:
        """What lies under a prefix, with a credential for just this that soon expires."""


class ArchiveBackend:
    """Archives are sealed with keys of their own, made of `master`; with None they are plain."""

    def __init__(self, place: Place, master: bytes | None) -> None:
        self._place = place
        self._master = master
        self._keys = None if master is None else derived(master)
        with translated():
            self._store = place.store()
        self._index = Index(self._store)

    def capabilities(self) -> Capabilities:
        return Capabilities(bootable=False, poll_seconds=_POLL_SECONDS, carrier=self._place.carrier)

    @translated()
    def check_access(self) -> None:
        name, content = secrets.token_hex(8), secrets.token_bytes(1024)
        checks = PrefixedStore(self._store, "checks")
        checks.put(name, content, new=True)
        try:
            if checks.get(name) != content or name not in {entry.key for entry in checks.list("")}:
                raise Corrupted(f"{checks.name} does not give back what it took.", "Look at the store, and the link.")
            self._place.descriptor(f"checks/{name}", "", writes=True)
        finally:
            checks.delete([name])

    @translated()
    def create_volume(self, labels: Labels, spec: VolumeSpec) -> Resource:
        return self._create(labels, spec, origin=None)

    @translated()
    def clone(self, snapshot: Resource, labels: Labels, spec: VolumeSpec) -> Resource:
        self._index.lasting(Kind.SNAPSHOT, snapshot.id)
        return self._create(labels, spec, origin=snapshot.id)

    @translated()
    def snapshot(self, volume_id: str, labels: Labels) -> Resource:
        volume = self._index.lasting(Kind.VOLUME, volume_id)
        run = Labels(labels.wave, labels.migration, labels.run)
        if labels.generation is None or not run.tags().items() <= volume.tags.items():
            raise InvalidRequest(
                f"A snapshot of {volume_id} cannot be labelled {labels.name()}.",
                "Its labels need a generation, and the volume's wave, migration and run.",
            )
        held = self._archive(volume_id).load(labels.generation)
        name = snapshot_id(volume_id, labels.generation)
        record = Record(tags=labels.tags(), name=labels.name(), size_gib=volume.size_gib, root=held.root)
        try:
            self._index.put(Kind.SNAPSHOT, name, record, new=True)
        except AlreadyThere:
            there = self._index.lasting(Kind.SNAPSHOT, name)
            if there != record:
                raise Conflict(f"Snapshot {name} is there as {there.name}.", "Delete that one first.") from None
        else:
            self._require_lasting(Kind.VOLUME, volume_id, lambda: self._index.remove(Kind.SNAPSHOT, name))
        return record.resource(Kind.SNAPSHOT, name)

    @translated()
    def get(self, kind: Kind, resource_id: str) -> Resource:
        return self._index.find(kind, resource_id).resource(kind, resource_id)

    @translated()
    def list(self, labels: Labels, kind: Kind | None = None) -> list[Resource]:
        kinds = [each for each in (Kind.VOLUME, Kind.SNAPSHOT) if kind in (None, each)]
        return [record.resource(each, name) for each in kinds for name, record in self._index.list(each, labels)]

    @translated()
    def delete(self, resource: Resource) -> None:
        kind, name = resource.kind, resource.id
        try:
            record = self._index.find(kind, name)
        except NotFound:
            return
        self._require_unneeded(kind, name)
        self._index.put(kind, name, record.model_copy(update={"deleting": True}))
        try:
            self._require_unneeded(kind, name)
        except Conflict:
            self._index.put(kind, name, record.model_copy(update={"deleting": False}))
            raise
        if kind is Kind.VOLUME:
            self._forget_volume(name, record)
        else:
            self._sweep(parts_of(name)[0], name)
            self._index.remove(kind, name)

    @translated()
    def sink(self, volume_id: str, labels: Labels, generation: int) -> BucketArchive | DisksArchive:
        self._index.lasting(Kind.VOLUME, volume_id)
        return self._descriptor(volume_id, writes=True)

    @translated()
    def source(self, resource_id: str) -> BucketArchive | DisksArchive:
        """A clone is read where its snapshot lies, until it has a generation of its own that builds on that."""
        try:
            origin = self._index.find(Kind.VOLUME, resource_id).origin
        except NotFound:
            self._index.find(Kind.SNAPSHOT, resource_id)
            return self._descriptor(parts_of(resource_id)[0], writes=False)
        if origin is not None and not self._archive(resource_id).generations():
            return self.source(origin)
        return self._descriptor(resource_id, writes=False)

    def _create(self, labels: Labels, spec: VolumeSpec, origin: str | None) -> Resource:
        name = volume_id(labels)
        record = Record(tags=labels.tags(), name=labels.name(), size_gib=spec.size_gib, origin=origin)
        try:
            self._index.put(Kind.VOLUME, name, record, new=True)
            made = True
        except AlreadyThere:
            record, made = self._index.lasting(Kind.VOLUME, name), False
        if record.origin is not None:
            self._index.add_clone(record.origin, name)
            try:
                self._index.lasting(Kind.SNAPSHOT, record.origin)
            except (NotFound, Conflict):
                # What an earlier call made may be in use; it is found by its labels.
                if made:
                    self._index.remove_clone(record.origin, name)
                    self._index.remove(Kind.VOLUME, name)
                raise
        self._make_archive(name, record)
        return record.resource(Kind.VOLUME, name)

    def _make_archive(self, name: str, record: Record) -> None:
        lies = self._lies(name)
        origin = None
        if record.origin is not None:
            volume, generation = parts_of(record.origin)
            origin = Origin(prefix_of(volume), generation)
        try:
            self._archive(name)
        except NoArchive:
            try:
                Archive.create(lies, key=self._keys, name=name, origin=origin)
            except AlreadyThere:
                self._archive(name)
            self._require_lasting(Kind.VOLUME, name, lambda: _empty(lies))

    def _require_lasting(self, kind: Kind, name: str, undo: Callable[[], None]) -> None:
        """Raises NotFound or Conflict, and undoes what was written, where that is gone, or goes, that it rests on."""
        try:
            self._index.lasting(kind, name)
        except (NotFound, Conflict):
            undo()
            raise

    def _require_unneeded(self, kind: Kind, name: str) -> None:
        """Raises Conflict where something rests on it: snapshots on a volume, clones on a snapshot."""
        for needs in self._index.snapshots_of(name) if kind is Kind.VOLUME else self._index.clones_of(name):
            raise Conflict(f"{kind.value.capitalize()} {name} is needed by {needs}.", f"Delete {needs} first.")

    def _forget_volume(self, name: str, record: Record) -> None:
        lies = self._lies(name)
        while True:
            _empty(lies)
            if record.origin is not None:
                self._index.remove_clone(record.origin, name)
            self._index.remove(Kind.VOLUME, name)
            if not any(lies.list("")):
                return
            # Others deleted it too, and made it anew, before its record went: so that one was theirs.
            try:
                self._index.put(Kind.VOLUME, name, record.model_copy(update={"deleting": True}), new=True)
            except AlreadyThere:
                return

    def _sweep(self, volume: str, gone: str) -> None:
        """Free what only this snapshot needed, as far as it is old enough for nobody to be at work on it."""
        held = [parts_of(snapshot)[1] for snapshot in self._index.snapshots_of(volume) if snapshot != gone]
        try:
            sweep(self._archive(volume), held)
        except (ArchiveError, DamagedObject) as error:
            # Somebody is at work in it, or it is damaged: what is left goes with another snapshot, or with the volume.
            log.warning("Volume %s is not swept: %s", volume, error)

    def _archive(self, name: str) -> Archive:
        return Archive.open(self._lies(name), self._keys)

    def _lies(self, name: str) -> Store:
        return PrefixedStore(self._store, prefix_of(name))

    def _descriptor(self, name: str, *, writes: bool) -> BucketArchive | DisksArchive:
        archive = self._archive(name)
        key = "" if self._master is None else archive_secret(self._master, archive.id).hex()
        return self._place.descriptor(prefix_of(name), key, writes=writes)


def prefix_of(volume: str) -> str:
    return f"volumes/{volume}"


def _empty(store: Store) -> None:
    """Also of what was put while it was emptied."""
    while keys := [entry.key for entry in store.list("")]:
        store.delete(keys)
