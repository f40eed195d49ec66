"""A random sample of a disk, read past the page cache and held against its block map."""

from __future__ import annotations

import mmap
import random
from pathlib import Path

from wavelift.blocks import sample
from wavelift.blocks.blockmap import DiskMap
from wavelift.blocks.digest import BLOCK
from wavelift.blocks.errors import SourceError
from wavelift.blocks.readback import Uncached
from wavelift.cli.report import Watch

# Blocks. Damage of one in a thousand of those with data is missed 3 times in 100, of one in a hundred never.
DATA, ZEROES = 3584, 512


def differing(found: DiskMap, path: Path, watch: Watch) -> list[tuple[int, int]]:
    """(start, end) in bytes of the blocks looked at that are not what the map says. Raises as `Uncached.read` does."""
    drawn = sample.draw(found, DATA, ZEROES, random.getrandbits(64), check=watch.check)
    buffer = mmap.mmap(-1, BLOCK)
    with Uncached(path) as lies:
        if lies.size < found.size:
            raise SourceError(f"{path} has {lies.size} bytes, fewer than {found.size}.", "Check which disk it is.")

        def read(offset: int, length: int) -> memoryview:
            watch.progress(total=found.size, done=offset)
            return lies.read(buffer, offset, length)

        wrong = sample.differing(drawn.blocks, found.size, read, watch.check)
        return [(start, min(found.size, start + BLOCK)) for start in wrong]
