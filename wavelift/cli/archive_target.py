"""An archive as TARGET of the copy command: each copy is one more generation in it, wherever it lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from wavelift.archive.archive import Archive
from wavelift.archive.commit import commit
from wavelift.archive.errors import NoArchive
from wavelift.archive.keys import KeyOf
from wavelift.archive.lease import held
from wavelift.archive.opening import FOLDER, Place, opened
from wavelift.blocks.attempts import PACKS
from wavelift.blocks.blockmap import DiskMap
from wavelift.blocks.compare import SourceTables, differences
from wavelift.blocks.compress import Compression
from wavelift.blocks.descriptor import DEFAULT_PACK_BYTES
from wavelift.blocks.pace import PacedSink
from wavelift.blocks.sink import Sink
from wavelift.blocks.throttle import Flow
from wavelift.cli.footing import Attempt, Ranges
from wavelift.cli.report import Watch
from wavelift.cli.tables import Watched
from wavelift.cli.targets import TargetRefused
from wavelift.sources.packs import ArchiveSource
from wavelift.stores.base import Store, StoreError
from wavelift.stores.disk_label import DiskRefused

# On disks larger than on the wire: a pack costs a file and a flush, and none is sent again.
DISK_PACK_BYTES = 16 << 20


class ArchiveTarget:
    migration = "copy"
    # What is kept for good is worth the time that it takes to make it small.
    compression = Compression(1)
    modified = left = None

    def __init__(self, place: Place, key: KeyOf | None, plain: bool) -> None:
        """Without a key nothing is sealed, which must be said of all but a folder. Raises `TargetRefused`."""
        if place.generation is not None:
            raise TargetRefused(f"{place.text} names a generation.", "A copy makes a new one: leave it out.")
        if key is None and not plain and place.scheme != FOLDER:
            raise TargetRefused(
                f"What goes to {place.text} leaves this machine, and there is no key to seal it with.",
                "Make one (openssl rand -hex 32 > archive.key) and give --key-file archive.key; or say --plain.",
            )
        self._place = place
        self._key = key
        self.pack_bytes = DISK_PACK_BYTES if place.folders else DEFAULT_PACK_BYTES
        self._archive: Archive | None = None
        self._generation: int | None = None

    @property
    def text(self) -> str:
        return self._place.text

    @property
    def exists(self) -> bool:
        """Raises as `Archive.open` does."""
        try:
            return self._found is not None
        except (NoArchive, DiskRefused):
            return False

    @property
    def id(self) -> str:
        """The archive's own, wherever it is moved to. Raises `ArchiveError`, `StoreError`."""
        return f"archive-{self._found.id}"

    @property
    def newest(self) -> int:
        return max(self._found.generations(), default=0)

    def refuse_source(self, source: Path) -> None:
        for folder in self._place.folders:
            if source.resolve().is_relative_to(folder.resolve()):
                raise TargetRefused(f"The source {source} lies in the target {folder}.", "Name another target.")

    def require_verifiable(self, how: str) -> None:
        """All of an archive can be read back, and in part it can not."""
        if how != "full":
            raise TargetRefused("Of an archive all is read back, or nothing.", "Give --verify full.")

    @contextmanager
    def held(self, size: int, ours: Callable[[str], bool]) -> Iterator[int]:
        """Made if it is not there. What it holds already stays, so no other copy's work is in danger.

        Raises `Busy`, `TargetRefused`, `ArchiveError`, `StoreError`, OSError.
        """
        if not self.exists:
            store = self._place.store(create=True)
            self._require_empty(store)
            self._archive = opened(store, self._key, create=True)
        with held(self._found.store, "copy", against=("copy",)):
            yield 0

    def sinks(self, generation: int, flow: Callable[[], Flow]) -> Callable[[], Sink]:
        self._generation = generation
        return lambda: PacedSink(self._found.sink(generation), flow())

    def unlike(self, attempt: Attempt, watch: Watch) -> Ranges | None:
        """What was acknowledged stays as it is; that it is all there is seen before a generation counts."""
        return []

    def keep(self, found: DiskMap, result: dict[str, Any], attempt: Attempt) -> None:
        """What was copied becomes a generation. Raises as `Archive.commit` does."""
        assert self._generation is not None
        archive, base = self._found, result["base_used"]
        # One that is here: a copy builds on nothing that lies elsewhere.
        root = None if base is None else archive.load(base).root
        consistency = str(result["disks"][0]["consistency"])
        commit(archive, self.migration, self._generation, base, root, found, consistency, attempt.number * PACKS)
        with suppress(StoreError):
            # What an attempt left costs room and does no harm: the copy has succeeded.
            archive.tidy(self._generation)

    def differing(self, disk: str, generation: int, found: DiskMap, how: str, watch: Watch) -> list[tuple[int, int]]:
        """Raises `BlocksLost`: a block that does not read back as it was is not read at all."""
        moment = ArchiveSource(lambda: self._found, generation).open()
        try:
            return list(differences(found, Watched(SourceTables(moment, check=watch.check), watch), watch.check))
        finally:
            moment.close()

    def discard(self) -> None:
        if self._archive is not None and self._generation is not None:
            self._archive.discard(self._generation)

    @property
    def _found(self) -> Archive:
        """One for the whole copy: what it was told that is there must be there when it ends."""
        if self._archive is None:
            if not all(folder.is_dir() for folder in self._place.folders):
                raise NoArchive(self.text)
            self._archive = Archive.open(self._place.store(), self._key)
        return self._archive

    def _require_empty(self, store: Store) -> None:
        """Raises `TargetRefused`. In a folder what is no object counts too."""
        there = next(iter(store.list("")), None)
        folder = next(iter(self._place.folders), None) if self._place.scheme == FOLDER else None
        if there is not None or (folder is not None and any(folder.iterdir())):
            raise TargetRefused(f"{self.text} is not empty and no archive.", "Name another place.")
