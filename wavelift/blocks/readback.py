"""Digest what really lies on a device: past the page cache, in reused buffers, holes skipped."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from wavelift.blocks.blockmap import disk_root, segment_digest, segments_of, table_size
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


def read_root(
    path: Path,
    size: int,
    *,
    workers: int = 2,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int], None] = lambda _done: None,
) -> bytes:
    """The disk root of the first `size` bytes (they may be fewer than the device has).

    `check` may raise to stop early; `progress` gets the bytes done. Raises `SourceError`, OSError.
    """
    buffers = [mmap.mmap(-1, STEP) for _ in range(workers)]
    segments = bytearray()
    with Uncached(path) as source, ThreadPoolExecutor(workers) as pool:
        if source.size < size:
            raise SourceError(f"{path} has {source.size} bytes, fewer than {size}.", "Check which disk it is.")

        def digest_range(start: int, end: int, table: bytearray, base: int, buffer: mmap.mmap) -> None:
            at = source.next_data(start, end) // BLOCK * BLOCK
            at = max(start, at)
            while at < end:
                check()
                length = min(STEP, end - at)
                found = digests(source.read(buffer, at, length))
                place = (at - base) // BLOCK * DIGEST
                table[place : place + len(found)] = found
                at = max(at + length, min(end, source.next_data(at + length, end) // BLOCK * BLOCK))

        def worker(number: int, base: int, end: int, table: bytearray) -> None:
            for start in range(base + number * CHUNK, end, workers * CHUNK):
                digest_range(start, min(end, start + CHUNK), table, base, buffers[number])

        for segment in range(segments_of(size)):
            check()
            base, end = segment * SEGMENT, min(size, (segment + 1) * SEGMENT)
            table = bytearray(table_size(size, segment))
            if source.next_data(base, end) < end:
                jobs = [pool.submit(worker, number, base, end, table) for number in range(workers)]
                for job in jobs:
                    job.result()
            segments += segment_digest(table)
            progress(end)
    return disk_root(size, bytes(segments))
