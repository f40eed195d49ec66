"""What a hydration has to write: a bit for each block of the disk, 2 KiB for a GiB of it that is touched."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from wavelift.blocks.blockmap import DiskMap, segments_of
from wavelift.blocks.compare import SizesDiffer, Tables
from wavelift.blocks.copy import changed_runs
from wavelift.blocks.digest import BLOCK, SEGMENT, SEGMENT_BLOCKS, ZERO_DIGEST

# A segment's number, and its bits.
_KEPT = struct.Struct(f"<Q{SEGMENT_BLOCKS // 8}s")


class Left:
    """Blocks that are yet to be written, of a disk of `size` bytes. All ranges are bytes, (start, end); the last block
    of a disk may be shorter."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._bits: dict[int, int] = {}
        self.bytes = 0

    def add(self, start: int, end: int) -> None:
        self._change(start, end, lambda bits, mask: bits | mask)

    def discard(self, start: int, end: int) -> None:
        self._change(start, end, lambda bits, mask: bits & ~mask)

    def any(self, start: int, end: int) -> bool:
        return any(self._bits.get(number, 0) & mask for number, mask in _masks(start, end))

    def runs(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Those within these bytes, neighbours as one within a segment."""
        for number, mask in _masks(start, end):
            for first, last in _ones(self._bits.get(number, 0) & mask):
                begin = number * SEGMENT
                yield begin + first * BLOCK, min(self._size, begin + last * BLOCK)

    def all(self) -> Iterator[tuple[int, int]]:
        """In order, neighbours as one."""
        begin = end = 0
        for number in self.segments():
            for start, stop in self.runs(number * SEGMENT, (number + 1) * SEGMENT):
                if start != end:
                    if begin < end:
                        yield begin, end
                    begin = start
                end = stop
        if begin < end:
            yield begin, end

    def segments(self) -> list[int]:
        """The numbers of those with anything left."""
        return sorted(number for number, bits in self._bits.items() if bits)

    def encode(self) -> bytes:
        return b"".join(
            _KEPT.pack(number, self._bits[number].to_bytes(SEGMENT_BLOCKS // 8, "little")) for number in self.segments()
        )

    @classmethod
    def decode(cls, size: int, data: bytes) -> Left:
        """Of what `encode` gave."""
        found = cls(size)
        for number, bits in _KEPT.iter_unpack(data):
            found._bits[number] = int.from_bytes(bits, "little")
            found.bytes += found._length(number, found._bits[number])
        return found

    def _change(self, start: int, end: int, made: Callable[[int, int], int]) -> None:
        for number, mask in _masks(start, end):
            before = self._bits.get(number, 0)
            after = self._bits[number] = made(before, mask)
            self.bytes += self._length(number, after) - self._length(number, before)

    def _length(self, number: int, bits: int) -> int:
        whole = bits.bit_count() * BLOCK
        last, within = divmod((self._size - 1) // BLOCK, SEGMENT_BLOCKS)
        if number == last and bits >> within & 1:
            whole -= -self._size % BLOCK
        return whole


def plan(
    wanted: DiskMap, base: Tables | None, zeroed: bool, check: Callable[[], None], keep: Callable[[bytes], None]
) -> Left:
    """What differs from the base. Without one that is everything, and where the target is `zeroed` everything but
    zeroes. `keep` is given the table of each segment with something to write. Raises `SizesDiffer`, and as the tables
    do; `check` may raise to stop."""
    if base is not None and base.size != wanted.size:
        raise SizesDiffer(base.size, wanted.size)
    left = Left(wanted.size)
    for number in range(segments_of(wanted.size)):
        check()
        name = wanted.segment(number)
        if name == (base.segment(number) if base is not None else ZERO_DIGEST if zeroed else None):
            continue
        table = wanted.table(number)
        keep(table)
        begin = number * SEGMENT
        for first, last, zero in changed_runs(table, None if base is None else base.table(number)):
            if not (zero and zeroed and base is None):
                left.add(begin + first * BLOCK, min(wanted.size, begin + last * BLOCK))
    check()
    return left


def _masks(start: int, end: int) -> Iterator[tuple[int, int]]:
    """By segment, the bits of the blocks that these bytes touch."""
    first, last = start // BLOCK, -(-end // BLOCK)
    while first < last:
        number, within = divmod(first, SEGMENT_BLOCKS)
        count = min(last - first, SEGMENT_BLOCKS - within)
        yield number, ((1 << count) - 1) << within
        first += count


def _ones(bits: int) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of each row of ones."""
    at = 0
    while bits:
        zeroes = (bits & -bits).bit_length() - 1
        bits >>= zeroes
        ones = (~bits & (bits + 1)).bit_length() - 1
        yield at + zeroes, at + zeroes + ones
        at, bits = at + zeroes + ones, bits >> ones
