"""What a tracker saves: the blocks it calls unchanged are taken over unread, after a sample of them proved it right."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator

from wavelift.blocks.blockmap import DiskMap, segments_of
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, ZERO_DIGEST, blocks_of, digest
from wavelift.blocks.plan import Intervals, Range
from wavelift.blocks.worktable import WorkTable
from wavelift.sources.base import Extent, PointInTime
from wavelift.sources.nbd_status import joined

SAMPLE = 32


def by_blocks(extents: Iterable[Extent]) -> Iterator[Extent]:
    """The same as runs of whole blocks: one that is dirty in part is dirty, one that is zero in part is not."""
    return joined(_blocks(extents))


def _blocks(extents: Iterable[Extent]) -> Iterator[Extent]:
    held: Extent | None = None
    for extent in extents:
        for start, end in _cut(extent.start, extent.start + extent.length):
            if held is not None and start % BLOCK:
                dirty, zero = held.dirty or extent.dirty, held.zero and extent.zero
                held = Extent(held.start, end - held.start, dirty, zero)
                continue
            if held is not None:
                yield held
            held = Extent(start, end - start, extent.dirty, extent.zero)
    if held is not None:
        yield held


def _cut(start: int, end: int) -> Iterator[tuple[int, int]]:
    """The part up to a block's edge, the whole blocks, and the part after the last edge."""
    edges = sorted({start, min(end, -(-start // BLOCK) * BLOCK), max(start, end // BLOCK * BLOCK), end})
    return itertools.pairwise(edges)


def dirty(source: PointInTime) -> Iterator[tuple[int, int, bool]]:
    """(start, end, zero) of what changed, in whole blocks."""
    for extent in by_blocks(source.extents()):
        if extent.dirty:
            yield extent.start, extent.start + extent.length, extent.zero


def disproof(
    source: PointInTime, extents: Iterable[Extent], table_of: Callable[[int], bytes], check: Callable[[], None]
) -> int | None:
    """Where (byte) a block of extents that are not dirty is not what the digest table of its segment has, of a random
    sample; or None."""
    drawn = [-1] * SAMPLE
    seen = 0
    for extent in by_blocks(extents):
        check()
        if extent.dirty or extent.zero:
            continue
        count = blocks_of(extent.length)
        seen += count
        for slot in range(SAMPLE):
            if random.random() * seen < count:
                drawn[slot] = extent.start // BLOCK + random.randrange(count)
    held, table = -1, b""
    view = memoryview(bytearray(BLOCK))
    for block in sorted(set(drawn) - {-1}):
        check()
        start = block * BLOCK
        if start // SEGMENT != held:
            held, table = start // SEGMENT, table_of(start // SEGMENT)
        part = view[: min(BLOCK, source.size - start)]
        source.readinto(start, part)
        at = start % SEGMENT // BLOCK * DIGEST
        if digest(part) != table[at : at + DIGEST]:
            return start
    return None


def take_over(table: WorkTable, base: DiskMap, kept: Intervals, check: Callable[[], None]) -> None:
    """Put the base's digests into a table that has none, but for those of `kept`."""
    for segment in range(segments_of(base.size)):
        check()
        found = base.table(segment)
        if base.segment(segment) != ZERO_DIGEST:
            first = segment * SEGMENT
            for start, end in kept.missing(first, min(first + SEGMENT, base.size)):
                table.write(start, found[(start - first) // BLOCK * DIGEST : -(-(end - first) // BLOCK) * DIGEST])


def keep_only(table: WorkTable, kept: Intervals) -> None:
    """Drop all other digests, of whatever attempt and of a base it took over: what is zero there now names none."""
    for start, end in kept.missing(0, table.size):
        table.clear(start, end)


def still_there(written: Iterable[Extent], done: Intervals) -> Intervals:
    """What of `done` was not written since, in whole blocks."""
    kept = Intervals()
    for extent in by_blocks(written):
        if not extent.dirty:
            for start, end in _within(done, extent.start, extent.start + extent.length):
                kept.add(start, end)
    return kept


def clean(kept: Intervals, size: int) -> Iterator[Extent]:
    """A disk's extents: what is kept is not dirty, all else is."""
    at = 0
    for start, end in kept:
        if at < start:
            yield Extent(at, start - at, dirty=True, zero=False)
        yield Extent(start, end - start, dirty=False, zero=False)
        at = end
    if at < size:
        yield Extent(at, size - at, dirty=True, zero=False)


def _within(done: Intervals, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of start..end that are in the set."""
    at = start
    for begin, stop in done.missing(start, end):
        if at < begin:
            yield at, begin
        at = stop
    if at < end:
        yield at, end


def noting_zeroes(work: Iterable[Range], table: WorkTable) -> Iterator[Range]:
    """The same ranges; the copy names no digests for zeroes, so the base's are overwritten here."""
    for item in work:
        if item.zero:
            table.clear(item.start, item.end)
        yield item
