"""What is left to copy of a disk: block-aligned ranges, and the intervals that are done."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from wavelift.blocks.digest import BLOCK, SEGMENT

DATA_RANGE = 8 << 20


@dataclass(frozen=True)
class Range:
    """Bytes `start` to `end` of a disk, within one segment; `zero` when known to be zeroes."""

    start: int
    end: int
    zero: bool


class Intervals:
    """A set of bytes as sorted, disjoint, merged intervals; `total` is how many they are."""

    def __init__(self, intervals: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        # Asked for all the time: adding it up each time would cost the square of the pieces.
        self.total = 0
        for start, end in intervals:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._ends, strict=True)))

    def add(self, start: int, end: int) -> None:
        first = bisect.bisect_left(self._ends, start)
        last = bisect.bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
            self.total -= sum(self._ends[first:last]) - sum(self._starts[first:last])
        self.total += end - start
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def missing(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of start..end that are not in the set."""
        at = start
        index = bisect.bisect_right(self._ends, start)
        while at < end and index < len(self._starts) and self._starts[index] < end:
            if self._starts[index] > at:
                yield at, self._starts[index]
            at = self._ends[index]
            index += 1
        if at < end:
            yield at, end


def ranges(extents: Iterable[tuple[int, int, bool]], size: int, done: Intervals) -> Iterator[Range]:
    """Work from (start, end, zero) extents: aligned to blocks (data wins a shared block), cut to size."""
    for start, end, zero in _aligned(extents, size):
        for piece_start, piece_end in done.missing(start, end):
            yield from _cut(piece_start, piece_end, zero)


def _aligned(extents: Iterable[tuple[int, int, bool]], size: int) -> Iterator[tuple[int, int, bool]]:
    at = 0
    for start, end, zero in _joined(extents):
        if zero:
            from_, to = -(-start // BLOCK) * BLOCK, end if end >= size else end // BLOCK * BLOCK
        else:
            from_, to = start // BLOCK * BLOCK, min(size, -(-end // BLOCK) * BLOCK)
        from_ = max(from_, at)
        if from_ < to:
            # Zero extents shorter than a block between two data extents leave no gap: data covers them.
            yield from_, to, zero
            at = to


def _joined(extents: Iterable[tuple[int, int, bool]]) -> Iterator[tuple[int, int, bool]]:
    """Neighbouring zero extents as one: where two meet within a block, neither alone has the whole of it."""
    pending: tuple[int, int] | None = None
    for start, end, zero in extents:
        if zero and pending is not None and pending[1] == start:
            pending = pending[0], end
            continue
        if pending is not None:
            yield *pending, True
        pending = (start, end) if zero else None
        if not zero and start < end:
            yield start, end, False
    if pending is not None:
        yield *pending, True


def _cut(start: int, end: int, zero: bool) -> Iterator[Range]:
    while start < end:
        step = SEGMENT if zero else DATA_RANGE
        stop = min(end, (start // step + 1) * step)
        yield Range(start, stop, zero)
        start = stop
