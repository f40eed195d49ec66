"""What was just copied is read a second time from the moment that is still open: a random sample of it.

A bit that flips on its way from the medium to here would otherwise be copied, mapped and verified as if it were the
disk's.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable

from wavelift.blocks.blockmap import DiskMap
from wavelift.blocks.digest import BLOCK
from wavelift.blocks.errors import SourceError
from wavelift.blocks.sample import differing, draw
from wavelift.sources.base import Cached, Consistency, PointInTime

DATA_BLOCKS = 64
ZERO_BLOCKS = 8


class SourceUnstable(SourceError):
    """A disk whose moment is fixed gave two contents for one block; `offset` in bytes."""

    default_code = "source_unstable"

    def __init__(self, disk: str, offset: int) -> None:
        self.disk, self.offset = disk, offset
        super().__init__(
            f"Disk {disk}: the block at byte {offset} was read twice, and the second time it was another.",
            "Look for errors of the disk, its cable or the memory in the source's kernel log. The next attempt "
            "reads and sends all of it again.",
        )


def unstable(
    source: PointInTime, found: DiskMap, copied: Iterable[tuple[int, int]], check: Callable[[], None]
) -> int | None:
    """Where (byte) a second read differs from what `found` says of the first; None for nowhere in the sample, and
    for a source that is not of one moment. `copied` are (start, end) in bytes. Raises `SourceError`.
    """
    if source.consistency is Consistency.MOVING:
        return None
    sample = draw(found, DATA_BLOCKS, ZERO_BLOCKS, secrets.randbits(64), copied, check)
    buffer = memoryview(bytearray(BLOCK))

    def read(offset: int, length: int) -> memoryview:
        if isinstance(source, Cached):
            source.drop_cache(offset, length)
        source.readinto(offset, buffer[:length])
        return buffer[:length]

    return next(differing(sample.blocks, found.size, read, check), None)
