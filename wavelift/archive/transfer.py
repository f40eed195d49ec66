"""Archives from one store to another, object by object as they are: what is sealed stays sealed, and no key is needed.

Of each generation first the packs, then its map, its list, its record: the target never shows half of one. What is
there already is not copied, so the same transfer goes on after whatever ended it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TypeVar

from blake3 import blake3

from wavelift.archive.errors import ArchiveError
from wavelift.archive.layout import ABOUT, SEGMENTS, Row, list_key, map_key, packs_prefix, record_key, row_of
from wavelift.archive.survey import SeenArchive, survey
from wavelift.stores.base import Entry, Full, NotThere, Store, Unavailable
from wavelift.stores.disk_inventory import FILE as INVENTORY
from wavelift.stores.disk_inventory import Held
from wavelift.stores.disk_label import DiskMissing
from wavelift.stores.offline import OfflineStore

T = TypeVar("T")
WORKERS = 4


class TransferRefused(ArchiveError):
    """Nothing to copy, or the target holds something else where it should go; nothing was written."""

    default_code = "transfer_refused"


@dataclass(frozen=True)
class Fault:
    """An object that is not as it was put: its key in the whole store, and of a pack the bytes of the disk image that
    it speaks of, from `start` to `end`. `disks` are the labels of the offline disks it is on, or should be, where that
    is known."""

    key: str
    why: str
    start: int
    end: int
    disks: tuple[str, ...] = ()


@dataclass
class Outcome:
    """Bytes of objects that were copied, and that were there. `withheld`, by the archive's prefix and number: the
    generations that are not at the target for a fault in them or in an earlier one."""

    copied: int = 0
    skipped: int = 0
    objects: int = 0
    faults: list[Fault] = field(default_factory=list)
    withheld: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Pending:
    """What the target lacks: bytes of packs, the largest of these, and bytes of all else."""

    packs: int
    largest: int
    others: int


class Transfer:
    """Of all archives in `source`, each to the same prefix."""

    def __init__(
        self,
        source: Store,
        target: Store,
        *,
        anew: bool = False,
        check: Callable[[], None] = lambda: None,
        progress: Callable[[int, int, int], None] = lambda total, done, copied: None,
    ) -> None:
        """With `anew` what lies at the target is read and compared, and replaced where it differs. `check` may raise
        to end it, and `progress` gets bytes (total, done, copied); both from any thread.

        Raises `TransferRefused`, `ArchiveError`, `StoreError`.
        """
        self.source = source
        self.target = target
        self.anew = anew
        self.check = check
        self._progress = progress
        self._lock = threading.Lock()
        self.outcome = Outcome()
        found = survey(source)
        if not found:
            raise TransferRefused(f"There is no archive in {source.name}.", "Name the place of one.")
        self.expected: dict[str, Held] = {}
        # Whether it cannot be told which packs are lost: then no generation is finished.
        self.blind = False
        if isinstance(source, OfflineStore):
            try:
                self.expected = source.expected()
            except Unavailable as error:
                self.blind = True
                self.outcome.faults.append(Fault(INVENTORY, error.message, 0, 0))
        self._archives = [_OfArchive(self, archive) for archive in found]
        for each in self._archives:
            each.require_same()
        self._total = sum(archive.other_bytes + sum(each.pack_bytes for each in archive.finished) for archive in found)

    def pending(self) -> Pending:
        """By what the target lists. Raises `StoreError`."""
        lacking = [entry for each in self._archives for entry in each.lacking()]
        there = {archive.prefix: archive.other_bytes for archive in survey(self.target)}
        others = sum(max(0, each.seen.other_bytes - there.get(each.seen.prefix, 0)) for each in self._archives)
        return Pending(sum(lacking), max(lacking, default=0), others)

    def run(self) -> Outcome:
        """Raises `Full`, which says how much is left, `StoreError`, and what `check` raises."""
        try:
            for each in self._archives:
                each.run()
        except Full as error:
            left = self._total - self.outcome.copied - self.outcome.skipped
            raise Full(f"{error.message} {left} bytes are still to be copied.", error.remedy) from error
        return self.outcome

    def count(self, size: int, *, copied: bool) -> None:
        with self._lock:
            self.outcome.objects += copied
            self.outcome.copied += size if copied else 0
            self.outcome.skipped += 0 if copied else size
            self._progress(self._total, self.outcome.copied + self.outcome.skipped, self.outcome.copied)

    def fault(self, fault: Fault) -> None:
        with self._lock:
            self.outcome.faults.append(fault)


class _OfArchive:
    """What a transfer does with one archive."""

    def __init__(self, all_: Transfer, seen: SeenArchive) -> None:
        self.seen = seen
        self._all = all_
        self._before = f"{seen.prefix}/" if seen.prefix else ""
        self._source, self._target = seen.within(all_.source), seen.within(all_.target)
        self._disks = all_.source if isinstance(all_.source, OfflineStore) else None

    def require_same(self) -> None:
        """Raises `TransferRefused` where the target has another archive, or another generation of that number."""
        for key in (ABOUT, *(record_key(each.number) for each in self.seen.finished)):
            try:
                held = self._target.get(key)
            except NotThere:
                continue
            if held != self._source.get(key):
                what = "another archive" if key == ABOUT else f"other {key}"
                raise TransferRefused(f"{self._target.name} holds {what} already.", "Name another target.")

    def lacking(self) -> Iterator[int]:
        """The sizes of the packs that the target does not list."""
        for generation in self.seen.finished:
            prefix = packs_prefix(generation.number)
            there = _sizes(self._target, prefix)
            yield from (entry.size for entry in self._source.list(prefix) if there.get(entry.key) != entry.size)

    def run(self) -> None:
        self._put(ABOUT, new=True)
        before = len(self._all.outcome.faults)
        there = _sizes(self._target, SEGMENTS)
        for place, generation in enumerate(self.seen.finished):
            self._packs(generation.number)
            if place == 0:
                _parallel(self._source.list(SEGMENTS), lambda entry: self._copy(entry, there, self._read))
            for key in (map_key(generation.number), list_key(generation.number), record_key(generation.number)):
                if self._all.blind or len(self._all.outcome.faults) > before:
                    self._all.outcome.withheld.append((self.seen.prefix, generation.number))
                    break
                self._put(key, new=key == record_key(generation.number))

    def _packs(self, number: int) -> None:
        """Raises `StoreError`; what a disk has damaged or lacks becomes a fault."""
        prefix = packs_prefix(number)
        there = _sizes(self._target, prefix)
        seen = set(there)

        def noted() -> Iterator[Entry]:
            for entry in self._source.list(prefix):
                seen.add(entry.key)
                yield entry

        _parallel(noted(), lambda entry: self._copy(entry, there, lambda key: self._sound(key, prefix, entry.size)))
        for full, held in self._all.expected.items():
            key = full.removeprefix(self._before)
            if full.startswith(self._before + prefix) and key not in seen:
                self._fault(key, "missing", row_of(key.removeprefix(prefix), held.size))

    def _copy(self, entry: Entry, there: dict[str, int], fetch: Callable[[str], bytes | None]) -> None:
        """A pack or a table: of one name and size they are the same, unless the target's medium has damaged it."""
        self._all.check()
        same = there.get(entry.key) == entry.size
        data = None if same and not self._all.anew else fetch(entry.key)
        if data is not None and not (same and self._holds(entry.key, data)):
            self._target.put(entry.key, data)
            self._all.count(entry.size, copied=True)
        elif same:
            self._all.count(entry.size, copied=False)

    def _put(self, key: str, *, new: bool = False) -> None:
        self._all.check()
        data = self._read(key)
        if data is None:
            return
        held = self._holds(key, data)
        if not held or self._all.anew:
            # Each of several disks has a copy of its own, and one of them may be damaged.
            self._target.put(key, data, new=new and not held)
        self._all.count(len(data), copied=not held)

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self._target.get(key) == data
        except (NotThere, Unavailable):
            # What cannot be read is put once more, and who cannot be reached says so then.
            return False

    def _sound(self, key: str, prefix: str, size: int) -> bytes | None:
        """The pack when it is what its name says; else None, and a fault. Raises `StoreError`."""
        row = row_of(key.removeprefix(prefix), size)
        if row is None:
            return None
        data = self._read(key, row)
        if data is None or blake3(data).digest() == row.digest:
            return data
        self._fault(key, "damaged", row)
        return None

    def _read(self, key: str, row: Row | None = None) -> bytes | None:
        """None, and a fault, for what a disk does not give. Raises `StoreError` for any other store."""
        try:
            return self._source.get(key)
        except (NotThere, DiskMissing, Unavailable) as error:
            if self._disks is None:
                raise
            self._fault(key, error.message, row)
            return None

    def _fault(self, key: str, why: str, row: Row | None) -> None:
        full = self._before + key
        held = self._all.expected.get(full)
        if self._disks is None:
            labels: tuple[str, ...] = ()
        elif held is None:
            labels = tuple(disk.label.label for disk in self._disks.holders(full))
        else:
            labels = (self._disks.label_of(held.disk),)
        start, end = (0, 0) if row is None else (row.start, row.end)
        self._all.fault(Fault(full, why, start, end, labels))


def _sizes(store: Store, prefix: str) -> dict[str, int]:
    return {entry.key: entry.size for entry in store.list(prefix)}


def _parallel(items: Iterable[T], work: Callable[[T], None]) -> None:
    """Some at a time; the first error ends all. Raises it."""
    left = iter(items)
    lock = threading.Lock()
    ended = threading.Event()

    def worker() -> None:
        try:
            while not ended.is_set():
                with lock:
                    item = next(left)
                work(item)
        except StopIteration:
            return
        finally:
            ended.set()

    with ThreadPoolExecutor(WORKERS) as pool:
        workers = [pool.submit(worker) for _ in range(WORKERS)]
        wait(workers)
    for each in workers:
        each.result()
