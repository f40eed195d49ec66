"""Which blocks of a map packs hold, or at least speak of."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from wavelift.blocks.blockmap import DiskMap
from wavelift.blocks.copy import changed_runs
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, blocks_of
from wavelift.blocks.pack import Record

_TABLES_KEPT = 4


class Held:
    """Fed by one thread at a time."""

    def __init__(self, found: DiskMap) -> None:
        self._map = found
        # Of each segment a bit for each block: 2 KiB for a GiB of disk.
        self._bits: dict[int, int] = {}
        self._table = lru_cache(_TABLES_KEPT)(found.table)

    def note(self, record: Record) -> bool:
        """The record's blocks that are those of the map; whether there are any. Raises as the map does."""
        if not record.digests or record.offset + record.length > self._map.size:
            return False
        segment, first = record.offset // SEGMENT, record.offset % SEGMENT // BLOCK
        table, count = self._table(segment), len(record.digests) // DIGEST
        equal = 0
        if record.digests == table[first * DIGEST : (first + count) * DIGEST]:
            equal = (1 << count) - 1
        else:
            for at in range(count):
                there = (first + at) * DIGEST
                equal |= (record.digests[at * DIGEST : (at + 1) * DIGEST] == table[there : there + DIGEST]) << at
        self._bits[segment] = self._bits.get(segment, 0) | equal << first
        return equal != 0

    def cover(self, start: int, end: int) -> None:
        """All blocks of these bytes, without a look at what they hold."""
        for segment in range(start // SEGMENT, -(-end // SEGMENT)):
            begin = segment * SEGMENT
            first = (max(start, begin) - begin) // BLOCK
            count = blocks_of(min(end, begin + SEGMENT) - begin) - first
            self._bits[segment] = self._bits.get(segment, 0) | ((1 << count) - 1) << first

    def agree(self, segment: int, other: DiskMap) -> None:
        """The blocks of a segment that another map has as well. Raises as the maps do."""
        table = self._table(segment)
        theirs = table if other.segment(segment) == self._map.segment(segment) else other.table(segment)
        equal = 0
        for at in range(0, min(len(table), len(theirs)), DIGEST):
            equal |= (table[at : at + DIGEST] == theirs[at : at + DIGEST]) << at // DIGEST
        self._bits[segment] = self._bits.get(segment, 0) | equal

    def any(self, segment: int) -> bool:
        return self._bits.get(segment, 0) != 0

    def lacking(self, segment: int, base: bytes | None = None) -> Iterator[tuple[int, int]]:
        """(start, end) in bytes of the blocks that are not zeroes, nor those of a base's table, and that nothing holds.
        Raises as the map does."""
        bits, begin = self._bits.get(segment, 0), segment * SEGMENT
        for first, last, zero in changed_runs(self._table(segment), base):
            for start, stop in () if zero else _runs(((1 << last) - (1 << first)) & ~bits):
                yield begin + start * BLOCK, min(self._map.size, begin + stop * BLOCK)


def _runs(bits: int) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of each row of ones."""
    at = 0
    while bits:
        zeroes = (bits & -bits).bit_length() - 1
        bits >>= zeroes
        ones = (~bits & (bits + 1)).bit_length() - 1
        yield at + zeroes, at + zeroes + ones
        at, bits = at + zeroes + ones, bits >> ones
