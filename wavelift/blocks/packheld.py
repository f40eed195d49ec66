"""Whether packs hold every block that a block map names, from the headers of their records."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from wavelift.blocks.blockmap import DiskMap, segments_of
from wavelift.blocks.copy import changed_runs
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT
from wavelift.blocks.errors import BlockError, PackError
from wavelift.blocks.pack import Record
from wavelift.blocks.packscan import scan_file

# A pack in the list of a generation: digest, length; index of a disk, 0, and what part of it the pack speaks of.
ROW = struct.Struct("<32sQIIQQ")


class BlocksLost(BlockError):
    """Blocks of a generation that no sound pack holds: `disk`, `ranges` as (start, end) in bytes, and the `packs`
    that are missing or damaged, where that is known."""

    default_code = "blocks_lost"

    def __init__(self, disk: str, ranges: Sequence[tuple[int, int]], packs: Sequence[Path]) -> None:
        self.disk, self.ranges, self.packs = disk, list(ranges), list(packs)
        where = ", ".join(f"{start} to {end}" for start, end in self.ranges[:8])
        more = f" and {len(self.ranges) - 8} more" if len(self.ranges) > 8 else ""
        cause = f"; missing or damaged: {', '.join(map(str, self.packs[:8]))}" if self.packs else ""
        super().__init__(
            f"Disk {disk}: no sound pack holds the bytes {where}{more}{cause}.",
            "Bring the packs back from another copy of the folder, or copy the disk in full once more.",
        )


class Held:
    """Which blocks of some maps are in the packs seen so far."""

    def __init__(self, disks: Sequence[DiskMap]) -> None:
        self._disks = disks
        self._index = {found.disk: place for place, found in enumerate(disks)}
        # Of each segment a bit for each block: 2 KiB for a GiB of disk.
        self._bits: dict[tuple[int, int], int] = {}
        self._table = lru_cache(4)(lambda place, segment: disks[place].table(segment))

    def take(self, path: Path) -> bytes | None:
        """The row of a pack, None for one that is no whole pack or holds nothing of the maps."""
        try:
            header, places = scan_file(path)
        except PackError:
            return None
        place = self._index.get(header.disks[0].disk)
        if place is None or len(header.disks) != 1:
            return None
        useful = [each.record for each in places if self._note(place, each.record)]
        if not useful:
            return None
        start = min(record.offset for record in useful)
        end = max(record.offset + record.length for record in useful)
        return ROW.pack(bytes.fromhex(path.stem), path.stat().st_size, place, 0, start, end)

    def require(self, place: int, base: DiskMap | None) -> None:
        """Raises `BlocksLost` for blocks that are in no pack and differ from the base's."""
        found = self._disks[place]
        missing: list[tuple[int, int]] = []
        for segment in range(segments_of(found.size)):
            if base is not None and base.segment(segment) == found.segment(segment):
                continue
            old = None if base is None else base.table(segment)
            bits, begin = self._bits.get((place, segment), 0), segment * SEGMENT
            for first, last, zero in changed_runs(found.table(segment), old):
                lacking = 0 if zero else ((1 << last) - (1 << first)) & ~bits
                for start, stop in _runs(lacking):
                    missing.append((begin + start * BLOCK, min(found.size, begin + stop * BLOCK)))
        if missing:
            raise BlocksLost(found.disk, missing, [])

    def _note(self, place: int, record: Record) -> bool:
        """Take note of the record's blocks that are those of the map; whether there are any."""
        if record.offset + record.length > self._disks[place].size:
            return False
        segment, first = record.offset // SEGMENT, record.offset % SEGMENT // BLOCK
        table, count = self._table(place, segment), len(record.digests) // DIGEST
        equal = 0
        if record.digests == table[first * DIGEST : (first + count) * DIGEST]:
            equal = (1 << count) - 1
        else:
            for at in range(count):
                at_map = (first + at) * DIGEST
                equal |= (record.digests[at * DIGEST : (at + 1) * DIGEST] == table[at_map : at_map + DIGEST]) << at
        self._bits[place, segment] = self._bits.get((place, segment), 0) | equal << first
        return equal != 0


def _runs(bits: int) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of each row of ones."""
    at = 0
    while bits:
        zeroes = (bits & -bits).bit_length() - 1
        bits >>= zeroes
        ones = (~bits & (bits + 1)).bit_length() - 1
        yield at + zeroes, at + zeroes + ones
        at, bits = at + zeroes + ones, bits >> ones
