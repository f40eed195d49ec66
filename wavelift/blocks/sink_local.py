"""A volume on this machine as a sink: the same packs and the same checks as at a gateway."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from wavelift.blocks.pack import MAX_RECORD, PackReader, from_memory
from wavelift.blocks.sink import Receipt
from wavelift.blocks.volume import VolumeWriter, open_direct


class LocalSink:
    """Writes to a block device or a file that is there and large enough."""

    takes_copies = False

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._direct = open_direct(path)
        except OSError:
            os.close(self._fd)
            raise
        size = os.lseek(self._fd, 0, os.SEEK_END)
        self._writer = VolumeWriter(str(path), size, self._fd, self._direct)
        # Page-aligned, as writes past the page cache need it.
        self._scratch = mmap.mmap(-1, MAX_RECORD)

    def put(self, sequence: int, pack: memoryview) -> Receipt:
        """Durable on return. Raises `PackError`, `VolumeTooSmall`, OSError."""
        written = self._writer.take(PackReader(from_memory(pack), self._scratch))
        os.fdatasync(self._fd)
        return Receipt(written.blocks, written.bytes, len(pack), 0.0)

    def close(self) -> None:
        os.close(self._fd)
        if self._direct is not None:
            os.close(self._direct)
