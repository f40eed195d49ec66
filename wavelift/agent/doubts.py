"""Blocks of the base that its volume does not hold as it should: the next generation sends them, changed or not."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from wavelift.blocks.blockmap import DiskMap
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, blocks_of
from wavelift.blocks.plan import Intervals

# No digest of anything: neither the sentinel of zeroes nor, but for a chance of 2^-256, that of a block.
UNKNOWN_DIGEST = b"\xff" * DIGEST
MAX_RANGES = 16384


@dataclass(frozen=True)
class DoubtedMap(DiskMap):
    """A base map that does not say what the volume holds at `doubts`, (start, end) in bytes, in order."""

    doubts: Sequence[tuple[int, int]] = ()

    def segment(self, number: int) -> bytes:
        return UNKNOWN_DIGEST if any(self._within(number)) else super().segment(number)

    def table(self, number: int) -> bytes:
        table = bytearray(self._plain.table(number))
        base = number * SEGMENT
        for start, end in self._within(number):
            first, count = (start - base) // BLOCK, blocks_of(end - start)
            table[first * DIGEST : (first + count) * DIGEST] = UNKNOWN_DIGEST * count
        return bytes(table)

    def digests(self, first: int, count: int) -> bytes:
        return self._plain.digests(first, count)

    @property
    def _plain(self) -> DiskMap:
        return DiskMap(self.disk, self.size, self.segments, self.tables)

    def _within(self, number: int) -> Iterator[tuple[int, int]]:
        """The parts of the doubts that lie in a segment."""
        base = number * SEGMENT
        stop = min(self.size, base + SEGMENT)
        for start, end in self.doubts[max(0, bisect.bisect_left(self.doubts, (base, 0)) - 1) :]:
            if start >= stop:
                break
            start, end = max(start, base), min(end, stop)
            if start < end:
                yield start, end


def doubted(base: DiskMap | None, doubts: Sequence[tuple[int, int]]) -> DiskMap | None:
    if base is None or not doubts:
        return base
    return DoubtedMap(base.disk, base.size, base.segments, base.tables, doubts)


def with_doubts(
    changed: Iterable[tuple[int, int, bool]], doubts: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int, bool]]:
    """(start, end, zero) of what changed and of what is doubted, in order of their starts."""
    return heapq.merge(changed, ((start, end, False) for start, end in doubts))


def bounded(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order as at most 16,384: where there are more, near ones become one with what lies between."""
    found: list[tuple[int, int]] = []
    gap = 0
    for item in ranges:
        found.append(item)
        while len(found) > MAX_RANGES:
            gap = max(BLOCK, 2 * gap)
            found = list(_closed(found, gap))
    return found


def _closed(ranges: list[tuple[int, int]], gap: int) -> Iterator[tuple[int, int]]:
    begin, end = ranges[0]
    for start, stop in ranges[1:]:
        if start - end > gap:
            yield begin, end
            begin = start
        end = stop
    yield begin, end


def whole_blocks(ranges: Iterable[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Ranges of a disk of `size` bytes, widened to whole blocks, joined and in order."""
    widened = ((start // BLOCK * BLOCK, min(size, -(-end // BLOCK) * BLOCK)) for start, end in ranges)
    return bounded(Intervals(sorted(widened)))
