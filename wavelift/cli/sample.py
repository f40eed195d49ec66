"""A random part of a disk, read past the page cache and held against its block map."""

from __future__ import annotations

import mmap
import random
from pathlib import Path

from wavelift.blocks.blockmap import DiskMap, segments_of
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, blocks_of, digest
from wavelift.blocks.errors import SourceError
from wavelift.blocks.plan import Intervals
from wavelift.blocks.readback import Uncached
from wavelift.cli.report import Watch

# Of 20 blocks one, of a small disk more; a fault in 1% of a disk of 8 GiB is missed once in 10^28 times.
SHARE = 20
AT_LEAST = 256


def differing(found: DiskMap, path: Path, watch: Watch) -> list[tuple[int, int]]:
    """(start, end) in bytes of the blocks looked at that are not what the map says. Raises as `Uncached.read` does."""
    wrong = Intervals()
    buffer = mmap.mmap(-1, BLOCK)
    with Uncached(path) as lies:
        if lies.size < found.size:
            raise SourceError(f"{path} has {lies.size} bytes, fewer than {found.size}.", "Check which disk it is.")
        for number in range(segments_of(found.size)):
            base = number * SEGMENT
            count = blocks_of(min(SEGMENT, found.size - base))
            table = found.table(number)
            for block in sorted(random.sample(range(count), min(count, max(AT_LEAST, count // SHARE)))):
                watch.check()
                start = base + block * BLOCK
                end = min(found.size, start + BLOCK)
                if digest(lies.read(buffer, start, end - start)) != table[block * DIGEST : (block + 1) * DIGEST]:
                    wrong.add(start, end)
                watch.progress(total=found.size, done=end)
    return list(wrong)
