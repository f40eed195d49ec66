"""The digests of a generation while it is made, for a block map to be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from wavelift.blocks.blockmap import ZERO_TABLE, segments_of, table_size
from wavelift.blocks.digest import BLOCK, DIGEST, TABLE, blocks_of
from wavelift.blocks.volume import VolumeWriter


class WorkTable:
    """A flat file, sparse where the disk is zero."""

    def __init__(self, path: Path, size: int) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = size
        os.ftruncate(self._fd, blocks_of(size) * DIGEST)

    def write(self, offset: int, table: bytes) -> None:
        """Digests of the blocks from byte `offset` of the disk on."""
        view, at = memoryview(table), offset // BLOCK * DIGEST
        while view:
            count = os.pwrite(self._fd, view, at)
            view, at = view[count:], at + count

    def clear(self, start: int, end: int) -> None:
        """No digests for these bytes of the disk, as for zeroes; takes no room and no time of its size."""
        first, last = start // BLOCK * DIGEST, blocks_of(end) * DIGEST
        VolumeWriter("", last, self._fd, None).zero(first, last - first)

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)

    def tables(self) -> Iterator[bytes]:
        return map(self.table, range(segments_of(self.size)))

    def table(self, segment: int) -> bytes:
        """Holes of the file are not read."""
        start, length = segment * TABLE, table_size(self.size, segment)
        try:
            empty = os.lseek(self._fd, start, os.SEEK_DATA) >= start + length
        except OSError:  # ENXIO: nothing but a hole up to the end
            empty = True
        return ZERO_TABLE[:length] if empty else os.pread(self._fd, length, start)
