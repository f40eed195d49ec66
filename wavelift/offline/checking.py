"""Whether the disks of a set hold what they should, without any key: packs by the digests in their names, all else by
comparing the copies on the disks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from blake3 import blake3

from wavelift.archive.layout import packs_prefix, row_of
from wavelift.archive.survey import SeenArchive, survey
from wavelift.stores.base import StoreError
from wavelift.stores.disk_inventory import FILE as INVENTORY
from wavelift.stores.disk_inventory import Held
from wavelift.stores.offline import OfflineStore
from wavelift.stores.offline_disk import OfflineDisk, is_pack


@dataclass(frozen=True)
class Finding:
    """An object that is not as it was put. `disks` are the labels of those that it is on, or should be. Of a pack there
    are the bytes of the disk image it speaks of, from `start` to `end`."""

    key: str
    why: str
    disks: tuple[str, ...]
    archive: str = ""
    generation: int | None = None
    start: int = 0
    end: int = 0


class Check:
    """`check` may raise to end it; `progress` gets bytes (total, done). Both are called from several threads."""

    def __init__(
        self,
        store: OfflineStore,
        check: Callable[[], None],
        progress: Callable[[int, int], None],
        *,
        packs: bool = True,
    ) -> None:
        """Without `packs` their content is not read. Raises `ArchiveError`, `StoreError`."""
        self.store = store
        self.archives = survey(store)
        self.findings: list[Finding] = []
        self.packs = 0
        self._read_packs = packs
        self._check, self._progress = check, progress
        self._lock = threading.Lock()
        self._done = 0
        self._total = sum(
            archive.other_bytes * len(store.disks)
            + sum(each.pack_bytes for each in archive.generations.values() if packs)
            for archive in self.archives
        )
        self._seen: set[str] = set()
        self._copies: dict[str, dict[str, bytes]] = {}

    def run(self) -> list[Finding]:
        """All disks at a time, each from its first object to its last. Raises what `check` does."""
        with ThreadPoolExecutor(len(self.store.disks)) as pool:
            reading = [pool.submit(self._disk, disk) for disk in self.store.disks]
            wait(reading)
        for each in reading:
            each.result()
        for key, copies in self._copies.items():
            if len(set(filter(None, copies.values()))) > 1:
                self._find(key, "its copies differ", tuple(sorted(copies)))
        for key, held in self._expected().items():
            if key not in self._seen:
                self._find(key, "missing", (self.store.label_of(held.disk),), held.size)
        return self.findings

    def _expected(self) -> dict[str, Held]:
        found: dict[str, Held] = {}
        for disk in self.store.disks:
            try:
                found.update(disk.inventory.read())
            except OSError as error:
                self._find(INVENTORY, f"it cannot be read: {error.strerror}", (disk.label.label,))
        return found

    def _disk(self, disk: OfflineDisk) -> None:
        label = disk.label.label
        for entry in disk.store.list(""):
            self._check()
            pack = is_pack(entry.key)
            with self._lock:
                if pack:
                    self._seen.add(entry.key)
            if pack and not self._read_packs:
                continue
            digest, why = b"", ""
            try:
                digest = blake3(disk.store.get(entry.key)).digest()
            except StoreError as error:
                why = error.message
            row = row_of(entry.key.rpartition("/")[2], entry.size) if pack else None
            if not why and row is not None and row.digest != digest:
                why = "damaged"
            with self._lock:
                if pack:
                    self.packs += 1
                else:
                    self._copies.setdefault(entry.key, {})[label] = digest
                self._done += entry.size
                self._progress(self._total, self._done)
            if why:
                self._find(entry.key, why, (label,), entry.size)

    def _find(self, key: str, why: str, disks: tuple[str, ...], size: int = 0) -> None:
        found = Finding(key, why, disks)
        for archive, number in _generations(self.archives):
            before = (f"{archive.prefix}/" if archive.prefix else "") + packs_prefix(number)
            row = row_of(key.removeprefix(before), size) if key.startswith(before) else None
            if row is not None:
                found = Finding(key, why, disks, archive.prefix, number, row.start, row.end)
        if found.generation is None and is_pack(key):
            # Of a generation that was never finished: nobody reads it.
            return
        with self._lock:
            self.findings.append(found)


def _generations(archives: list[SeenArchive]) -> Iterator[tuple[SeenArchive, int]]:
    return ((archive, each.number) for archive in archives for each in archive.finished)
