"""Deleting what no kept generation needs: all is listed and marked first, then what is not marked goes, records before
what they name. What is cut short leaves what the next sweep finds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from wavelift.archive.archive import Archive
from wavelift.archive.layout import (
    GENERATIONS,
    LOCKS,
    MAPS,
    PACKS,
    Generation,
    list_key,
    map_key,
    record_key,
    row_of,
    swept_key,
    table_key,
)
from wavelift.archive.lease import SECONDS as LEASE_SECONDS
from wavelift.archive.lease import held
from wavelift.blocks.attempts import attempt_of
from wavelift.blocks.blockmap import segments_of
from wavelift.blocks.digest import ZERO_DIGEST
from wavelift.stores.base import Entry

# Longer than any copy pauses that is still meant to go on.
GRACE_SECONDS = 7 * 24 * 3600.0
_AT_ONCE = 1000


@dataclass(frozen=True)
class Swept:
    """The generations that went, the kept ones, and how many objects of how many bytes were deleted."""

    generations: tuple[int, ...]
    kept: tuple[int, ...]
    objects: int
    bytes: int


def sweep(
    archive: Archive,
    keep: Collection[int],
    grace_seconds: float = GRACE_SECONDS,
    check: Callable[[], None] = lambda: None,
) -> Swept:
    """Keep these generations, what they build on, and the newest, which what is under way builds on. Nothing goes that
    is younger than the grace, by the store's clock.

    One at a time, and none while a generation is committed. `check` may raise to stop. Raises `Busy`, `NoGeneration`
    for one that is to be kept and not there, `Damaged`, `StoreError`; nothing is deleted before all was listed.
    """
    with held(archive.store, "sweep", against=("sweep", "commit")) as lease:
        found = _Marked(archive, keep, lease.now - grace_seconds, check)
        for number, attempt in found.emptied.items():
            # From now on what is left of it can become no generation, however this ends.
            archive.store.put(swept_key(number), str(max(attempt, archive.swept(number))).encode())
        count = size = 0
        for batch in _batches(found.doomed):
            check()
            lease.require()
            archive.bare.delete(entry.key for entry in batch)
            count, size = count + len(batch), size + sum(entry.size for entry in batch)
    return Swept(tuple(found.gone), tuple(sorted(found.kept)), count, size)


class _Marked:
    """What goes, in the order in which it goes."""

    def __init__(self, archive: Archive, keep: Collection[int], before: float, check: Callable[[], None]) -> None:
        self._archive = archive
        self._before = before
        self._check = check
        records = list(archive.bare.list(GENERATIONS))
        numbers = {int(name): each for each in records if (name := each.key.removeprefix(GENERATIONS)).isdecimal()}
        young = {number for number, entry in numbers.items() if entry.put_at > before}
        self.kept = self._closed({*keep, *young, *sorted(numbers)[-1:]})
        self.gone = sorted(numbers.keys() - self.kept.keys())
        # The last attempt at each.
        self.emptied: dict[int, int] = {}
        needed = {key for number in self.kept for key in (record_key(number), list_key(number), map_key(number))}
        needed |= self._tables()
        # Records first: what they name is there as long as they are.
        first = sorted(records, key=lambda entry: not entry.key.removeprefix(GENERATIONS).isdecimal())
        self.doomed = [
            *self._old(first, needed),
            *self._old(archive.bare.list(MAPS), needed),
            *self._packs(),
            *(entry for entry in archive.bare.list(LOCKS) if entry.put_at <= before - LEASE_SECONDS),
        ]

    def _closed(self, wanted: Collection[int]) -> dict[int, Generation]:
        """With all that they build on here."""
        found: dict[int, Generation] = {}
        for number in wanted:
            for generation in self._archive.chain(number):
                if generation.generation in found:
                    break
                found[generation.generation] = generation
                self._check()
        return found

    def _tables(self) -> set[str]:
        found = set()
        for generation in self.kept.values():
            self._check()
            its = self._archive.map(generation)
            names = {its.segment(part) for part in range(segments_of(its.size))}
            found |= {table_key(name.hex()) for name in names if name != ZERO_DIGEST}
        return found

    def _packs(self) -> Iterator[Entry]:
        """Of kept generations those that are in no list, of others all, of unfinished ones once nothing came for the
        whole grace."""
        of, there = "", list[Entry]()
        for entry in self._archive.bare.list(PACKS):
            self._check()
            folder = entry.key.rpartition("/")[0]
            if folder != of:
                yield from self._of_one(of, there)
                of, there = folder, []
            there.append(entry)
        yield from self._of_one(of, there)

    def _of_one(self, folder: str, there: list[Entry]) -> list[Entry]:
        name = folder.removeprefix(PACKS)
        if not name.isdecimal():
            return []
        number = int(name)
        if number in self.kept:
            rows = self._archive.packs(self.kept[number])
            ours = {rows.key(row) for row in rows}
            return list(self._old(there, ours))
        if any(entry.put_at > self._before for entry in there):
            return []
        found = (row_of(entry.key.rpartition("/")[2], entry.size) for entry in there)
        self.emptied[number] = max((attempt_of(row.sequence) for row in found if row is not None), default=0)
        return there

    def _old(self, entries: Iterable[Entry], kept: Collection[str]) -> Iterator[Entry]:
        for entry in entries:
            self._check()
            if entry.key not in kept and entry.put_at <= self._before:
                yield entry


def _batches(entries: list[Entry]) -> Iterator[list[Entry]]:
    left = iter(entries)
    while batch := list(islice(left, _AT_ONCE)):
        yield batch
