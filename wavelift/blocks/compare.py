"""Where two disks differ: their digest tables side by side, a segment at a time.

Any two of a block map, a file or device (`readback.ReadBack`) and a source's point in time (`SourceTables`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from wavelift.blocks.blockmap import segment_digest, segments_of, table_size
from wavelift.blocks.copy import changed_runs
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, blocks_of, digests
from wavelift.blocks.errors import BlockError
from wavelift.blocks.plan import Intervals, Range, ranges

STEP = 1 << 20


class SizesDiffer(BlockError):
    """Two disks that cannot be held against each other; sizes in bytes."""

    default_code = "sizes_differ"

    def __init__(self, left: int, right: int) -> None:
        self.left, self.right = left, right
        super().__init__(
            f"One disk has {left} bytes, the other {right}.", "Compare as many bytes as the smaller one has."
        )


class Tables(Protocol):
    """A disk's content by its digests."""

    @property
    def size(self) -> int: ...

    def segment(self, number: int) -> bytes:
        """The digest of the segment's table."""

    def table(self, number: int) -> bytes: ...


class _Extent(Protocol):
    @property
    def start(self) -> int: ...

    @property
    def length(self) -> int: ...

    @property
    def zero(self) -> bool: ...


class Moment(Protocol):
    """A source's point in time."""

    @property
    def size(self) -> int: ...

    def extents(self) -> Iterable[_Extent]: ...

    def readinto(self, offset: int, view: memoryview) -> None: ...


def differences(left: Tables, right: Tables, check: Callable[[], None] = lambda: None) -> Iterator[tuple[int, int]]:
    """(start, end) in bytes of the blocks that differ: in order, neighbours as one.

    Both sides are read at once; equal segments of two block maps are not read. `check` may raise to stop early.
    Raises `SizesDiffer`, `MapError`, `SourceError`, OSError.
    """
    if left.size != right.size:
        raise SizesDiffer(left.size, right.size)
    with ThreadPoolExecutor(1) as other:
        begin = end = 0
        for number in range(segments_of(left.size)):
            check()
            theirs = other.submit(right.segment, number)
            if left.segment(number) == theirs.result():
                continue
            base = number * SEGMENT
            for first, last, _ in changed_runs(left.table(number), right.table(number)):
                start, stop = base + first * BLOCK, min(left.size, base + last * BLOCK)
                if start != end:
                    if begin < end:
                        yield begin, end
                    begin = start
                end = stop
        if begin < end:
            yield begin, end


class SourceTables:
    """The tables of a point in time, read when they are asked for; cheapest in ascending order."""

    def __init__(self, moment: Moment, *, workers: int = 2, check: Callable[[], None] = lambda: None) -> None:
        self.size = moment.size
        self._moment = moment
        self._check = check
        self._buffers = [bytearray(STEP) for _ in range(workers)]
        self._work: Iterator[Range] = iter(())
        self._ahead: Range | None = None
        self._next = segments_of(self.size)
        self._last = -1, b""

    def segment(self, number: int) -> bytes:
        return segment_digest(self.table(number))

    def table(self, number: int) -> bytes:
        """The digests of a segment; the last one asked for is kept."""
        if self._last[0] != number:
            table = bytearray(table_size(self.size, number))
            work = self._data(number)
            with ThreadPoolExecutor(len(self._buffers)) as pool:
                jobs = [
                    pool.submit(self._digest, work[worker :: len(self._buffers)], table, buffer)
                    for worker, buffer in enumerate(self._buffers)
                ]
            for job in jobs:
                job.result()
            self._last = number, bytes(table)
        return self._last[1]

    def tables(self) -> Iterator[bytes]:
        for number in range(segments_of(self.size)):
            yield self.table(number)

    def _data(self, number: int) -> list[Range]:
        """The ranges of a segment that have to be read."""
        if number < self._next:
            extents = ((each.start, each.start + each.length, each.zero) for each in self._moment.extents())
            self._work, self._ahead = ranges(extents, self.size, Intervals()), None
        self._next = number + 1
        found = []
        item = self._ahead or next(self._work, None)
        while item is not None and item.start < (number + 1) * SEGMENT:
            if item.start >= number * SEGMENT and not item.zero:
                found.append(item)
            item = next(self._work, None)
        self._ahead = item
        return found

    def _digest(self, work: list[Range], table: bytearray, buffer: bytearray) -> None:
        for item in work:
            for start in range(item.start, item.end, STEP):
                self._check()
                view = memoryview(buffer)[: min(STEP, item.end - start)]
                self._moment.readinto(start, view)
                at = start % SEGMENT // BLOCK * DIGEST
                table[at : at + blocks_of(len(view)) * DIGEST] = digests(view)
