"""What a tracker saves: the blocks it calls unchanged are taken over unread, after a sample of them proved it right."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator

from wavelift.blocks.blockmap import DiskMap, WorkTable, segments_of
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, blocks_of, digest
from wavelift.blocks.plan import Range
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


def disproof(source: PointInTime, base: DiskMap, check: Callable[[], None]) -> int | None:
    """Where (byte) a block that the tracker calls unchanged is not what the base has, of a random sample; or None."""
    drawn = [-1] * SAMPLE
    seen = 0
    for extent in by_blocks(source.extents()):
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
            held, table = start // SEGMENT, base.table(start // SEGMENT)
        part = view[: min(BLOCK, source.size - start)]
        source.readinto(start, part)
        at = start % SEGMENT // BLOCK * DIGEST
        if digest(part) != table[at : at + DIGEST]:
            return start
    return None


def take_over(table: WorkTable, base: DiskMap, check: Callable[[], None]) -> None:
    """Begin a fresh table with the base's digests."""
    for segment in range(segments_of(base.size)):
        check()
        found = base.table(segment)
        if any(found):
            table.write(segment * SEGMENT, found)


def noting_zeroes(work: Iterable[Range], table: WorkTable) -> Iterator[Range]:
    """The same ranges; the copy names no digests for zeroes, so the base's are overwritten here."""
    for item in work:
        if item.zero:
            table.write(item.start, bytes(blocks_of(item.end - item.start) * DIGEST))
        yield item
