"""A folder as a sink: each pack a file, named by what it holds."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from blake3 import blake3

from wavelift.blocks.digest import blocks_of
from wavelift.blocks.packscan import scan
from wavelift.blocks.sink import Receipt
from wavelift.blocks.volume import write_past_cache

STEP = 4 << 20
TEMPORARY = ".new"


class FolderSink:
    """Writes past the page cache in large pieces where the file system takes that. One for each worker."""

    takes_copies = False

    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        self._folder = folder
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._buffer = mmap.mmap(-1, STEP)

    def put(self, sequence: int, pack: memoryview) -> Receipt:
        """Durable on return; the same pack twice is one file. Raises `PackError`, OSError."""
        _, places = scan(lambda offset, length: bytes(pack[offset : offset + length]))
        temporary = self._folder / f"{sequence}{TEMPORARY}"
        write_past_cache(temporary, pack, self._buffer)
        temporary.rename(self._folder / f"{blake3(pack).hexdigest()}.pack")
        os.fsync(self._fd)
        lengths = [place.record.length for place in places]
        return Receipt(sum(map(blocks_of, lengths)), sum(lengths), len(pack), 0.0)

    def close(self) -> None:
        os.close(self._fd)
        self._buffer.close()
