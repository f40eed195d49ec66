"""Digest what really lies on a device: past the page cache, in reused buffers, holes skipped."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from wavelift.blocks.blockmap import segment_digest, segments_of, table_size
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, digests
from wavelift.blocks.errors import SourceError

CHUNK = 16 << 20
STEP = 1 << 20
_ALIGNED = 4096


class Uncached:
    """Reads of a device or file that see the medium, not what the page cache still holds."""

    def __init__(self, path: Path) -> None:
        self._plain = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.fsync(self._plain)
        self.size = os.lseek(self._plain, 0, os.SEEK_END)
        self._holes = stat.S_ISREG(os.fstat(self._plain).st_mode)
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
            self.direct = True
        except OSError as error:
            if error.errno != errno.EINVAL:
                os.close(self._plain)
                raise
            self._fd = os.dup(self._plain)
            self.direct = False

    def __enter__(self) -> Uncached:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
        os.close(self._plain)

    def next_data(self, offset: int, end: int) -> int:
        """Where the next data at or after `offset` begins, at most `end`; devices have data everywhere."""
        if not self._holes:
            return offset
        try:
            return min(end, os.lseek(self._plain, offset, os.SEEK_DATA))
        except OSError as error:
            if error.errno == errno.ENXIO:
                return end
            raise

    def read(self, buffer: mmap.mmap, offset: int, length: int) -> memoryview:
        """`length` bytes from a 4 KiB aligned offset. Raises `SourceError` on a short read."""
        if not self.direct:
            os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)
        view = memoryview(buffer)
        got = 0
        while got < length:
            wanted = -(-(length - got) // _ALIGNED) * _ALIGNED
            count = os.preadv(self._fd, [view[got : got + wanted]], offset + got)
            if count <= 0:
                raise SourceError(f"Reading {length} bytes at {offset} ended after {got}.", "Check the device.")
            got += count
        return view[:length]


class ReadBack:
    """The digest tables of the first `size` bytes of a device or file, read when they are asked for.

    `done` says up to which byte that was, a segment at a time. `check` may raise to stop early. Raises `SourceError`
    when there are fewer bytes, OSError.
    """

    def __init__(self, path: Path, size: int, *, workers: int = 2, check: Callable[[], None] = lambda: None) -> None:
        self.size = size
        self.done = 0
        self._check = check
        self._buffers = [mmap.mmap(-1, STEP) for _ in range(workers)]
        self._last = -1, b""
        with ExitStack() as stack:
            self._source = stack.enter_context(Uncached(path))
            if self._source.size < size:
                raise SourceError(
                    f"{path} has {self._source.size} bytes, fewer than {size}.", "Check which disk it is."
                )
            self._pool = stack.enter_context(ThreadPoolExecutor(workers))
            self._open = stack.pop_all()

    def __enter__(self) -> ReadBack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def segment(self, number: int) -> bytes:
        return segment_digest(self.table(number))

    def table(self, number: int) -> bytes:
        """The digests of a segment; the last one asked for is kept."""
        if self._last[0] != number:
            self._check()
            base, end = number * SEGMENT, min(self.size, (number + 1) * SEGMENT)
            table = bytearray(table_size(self.size, number))
            if self._source.next_data(base, end) < end:
                workers = range(len(self._buffers))
                jobs = [self._pool.submit(self._worker, worker, base, end, table) for worker in workers]
                for job in jobs:
                    job.result()
            self._last = number, bytes(table)
            self.done = end
        return self._last[1]

    def tables(self) -> Iterator[bytes]:
        for number in range(segments_of(self.size)):
            yield self.table(number)

    def _worker(self, worker: int, base: int, end: int, table: bytearray) -> None:
        for start in range(base + worker * CHUNK, end, len(self._buffers) * CHUNK):
            self._digest(start, min(end, start + CHUNK), table, base, self._buffers[worker])

    def _digest(self, start: int, end: int, table: bytearray, base: int, buffer: mmap.mmap) -> None:
        at = max(start, self._source.next_data(start, end) // BLOCK * BLOCK)
        while at < end:
            self._check()
            length = min(STEP, end - at)
            found = digests(self._source.read(buffer, at, length))
            place = (at - base) // BLOCK * DIGEST
            table[place : place + len(found)] = found
            at = max(at + length, min(end, self._source.next_data(at + length, end) // BLOCK * BLOCK))
