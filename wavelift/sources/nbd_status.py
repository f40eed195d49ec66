"""What an NBD server says about an export's blocks, as extents. Pure: no connection here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from wavelift.sources.base import Extent

ZERO = 2  # of base:allocation; HOLE (1) alone leaves the content undefined
DIRTY = 1  # of qemu:dirty-bitmap:NAME

Blocks = Sequence[tuple[int, int]]


def merge(start: int, size: int, allocation: Blocks | None, dirty: Blocks | None) -> Iterator[Extent]:
    """The extents from `start` on that both lists speak of; the caller asks again from where they end.

    Each list is (length in bytes, flags) from `start`. None: nothing is known, so all is data, or all is dirty.
    An empty list, or one that starts with nothing, gives no extent. Never beyond `size`.
    """
    ends = [sum(length for length, _ in blocks) for blocks in (allocation, dirty) if blocks is not None]
    end = min([size, *(start + covered for covered in ends)])
    whole = [(end - start, 0)]
    pieces = (
        _split(whole if allocation is None else allocation),
        _split([(end - start, DIRTY)] if dirty is None else dirty),
    )
    at = start
    (left, status), (right, change) = next(pieces[0], (0, 0)), next(pieces[1], (0, 0))
    while at < end:
        step = min(left, right, end - at)
        yield Extent(at, step, dirty=bool(change & DIRTY), zero=bool(status & ZERO))
        at, left, right = at + step, left - step, right - step
        if left == 0 and at < end:
            left, status = next(pieces[0])
        if right == 0 and at < end:
            right, change = next(pieces[1])


def _split(blocks: Blocks) -> Iterator[tuple[int, int]]:
    return ((length, flags) for length, flags in blocks if length)


def joined(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Neighbours with the same flags as one."""
    pending: Extent | None = None
    for extent in extents:
        if pending is not None and (pending.dirty, pending.zero) == (extent.dirty, extent.zero):
            pending = Extent(pending.start, pending.length + extent.length, extent.dirty, extent.zero)
            continue
        if pending is not None:
            yield pending
        pending = extent
    if pending is not None:
        yield pending
