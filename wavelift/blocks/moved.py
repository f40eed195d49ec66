"""Blocks that lie elsewhere on the volume already: a file copied or moved at the source need not travel again.

An index of digests of the base's blocks, bounded whatever the disk's size: the larger the disk, the fewer blocks are
in it. One that is found leads to its neighbours, which are compared with the base's tables. What is found is a guess:
the block may have been overwritten since, so the receiver checks each digest and says where it is not so.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from threading import Event, Lock

from wavelift.blocks.blockmap import DiskMap, segments_of
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT_BLOCKS, ZERO_DIGEST
from wavelift.blocks.memory import MemoryBudget

MAX_ENTRIES = 1 << 17
# At least every second block is left out: building the index then takes a few ms per GiB.
LEAST_SKIPPED_BITS = 1
# An entry: the upper bits of a digest's first word, then the block's number (a disk of 2^50 bytes has 2^34 blocks).
_NUMBER_BITS = 34
_NUMBER = (1 << _NUMBER_BITS) - 1
_WORD = 8
# What an entry takes while the index is sorted, beyond its own 8 bytes: a number and a place in a list.
_SORTING = 40
# What was written in this copy is remembered by pieces of a disk of at least this size, and at most so many.
_PIECE = 1 << 20
_PIECES = 1 << 20


class MovedBlocks:
    """Where blocks of the base lie, by digest. Safe to use from several threads."""

    def __init__(self, base: DiskMap, most: int = MAX_ENTRIES, stop: Callable[[], bool] = lambda: False) -> None:
        """Of at most `most` blocks. Reads every table of the base until `stop` says so. Raises `MapError`."""
        self._base = base
        segments = [number for number in range(segments_of(base.size)) if base.segment(number) != ZERO_DIGEST]
        bits = LEAST_SKIPPED_BITS
        while len(segments) * SEGMENT_BLOCKS >> bits > most:
            bits += 1
        self._mask = (1 << bits) - 1
        entries = array("Q")
        for segment in segments:
            if stop():
                break
            entries.extend(self._entries(segment))
        self._entries_sorted = array("Q", sorted(entries))

    def __len__(self) -> int:
        return len(self._entries_sorted)

    def pieces(self, table: bytes, hint: int | None = None) -> Iterator[tuple[int, int, int | None]]:
        """(first, last + 1, block of the base or None) for runs of a record's digests, without zeroes among them.

        `hint` is the block of the base where the first of them lies if it goes on as what was found before it.
        """
        count = len(table) // DIGEST
        done = at = 0
        while at < count:
            for found in self._candidates(table, at, hint if at == 0 else None):
                begin, end, source = self._extend(table, done, at, found)
                if done < begin:
                    yield done, begin, None
                yield begin, end, source
                done = at = end
                break
            else:
                at += 1
        if done < count:
            yield done, count, None

    def _entries(self, segment: int) -> list[int]:
        mask, first = self._mask, segment * SEGMENT_BLOCKS
        words = memoryview(self._base.table(segment)).cast("Q")[:: DIGEST // _WORD].tolist()
        # Zero blocks have a word of zero; that another block has one too does not happen.
        return [
            word >> _NUMBER_BITS << _NUMBER_BITS | number
            for number, word in enumerate(words, first)
            if not word & mask and word
        ]

    def _candidates(self, table: bytes, at: int, hint: int | None) -> Iterator[int]:
        """Blocks of the base with the digest that stands `at` in the table."""
        digest = table[at * DIGEST : (at + 1) * DIGEST]
        if hint is not None and self._base.digests(hint, 1) == digest:
            yield hint
        word = memoryview(digest)[:_WORD].cast("Q")[0]
        if word & self._mask:
            return
        low = word >> _NUMBER_BITS << _NUMBER_BITS
        place = bisect_left(self._entries_sorted, low)
        while place < len(self._entries_sorted) and self._entries_sorted[place] <= low | _NUMBER:
            number = self._entries_sorted[place] & _NUMBER
            if self._base.digests(number, 1) == digest:
                yield number
            place += 1

    def _extend(self, table: bytes, done: int, at: int, found: int) -> tuple[int, int, int]:
        """The run around a hit, as far as the table goes, not before `done`."""
        count = len(table) // DIGEST
        before = min(at - done, found)
        known = self._base.digests(found - before, before + count - at)
        begin = end = before
        while begin and known[(begin - 1) * DIGEST : begin * DIGEST] == _slice(table, at - before + begin - 1):
            begin -= 1
        while at - before + end < count and known[end * DIGEST : (end + 1) * DIGEST] == _slice(
            table, at - before + end
        ):
            end += 1
        return at - before + begin, at - before + end, found - before + begin


class Elsewhere:
    """The indexes of a copy's disks, each made when it is first asked for something."""

    def __init__(self, bases: Sequence[tuple[DiskMap | None, int]], memory: MemoryBudget, stop: Event) -> None:
        """Base and size (bytes) of each disk. Where there is no memory now, nothing will be found."""
        with_base = [size for base, size in bases if base is not None]
        self._bases = bases
        self._memory = memory
        self._stop = stop
        self._most = MAX_ENTRIES // max(1, len(with_base))
        self._lock = Lock()
        self._indexes: dict[int, MovedBlocks | None] = {}
        self._written: dict[int, bytearray] = {}
        # One index is sorted at a time.
        wanted = sum(self._most * _WORD + _pieces(size) for size in with_base) + self._most * _SORTING
        self._reserved = wanted if with_base and memory.reserve(wanted) else 0

    def pieces(self, disk: int, table: bytes, hint: int | None) -> Iterator[tuple[int, int, int | None]]:
        """As `MovedBlocks.pieces`, without what this copy itself has overwritten."""
        index = self._index(disk)
        if index is None:
            yield 0, len(table) // DIGEST, None
            return
        written, size = self._written[disk], _piece(self._bases[disk][1])
        # Neighbours without a source are one piece: each would have a front of its own, and there is room for one more
        # than there are copies.
        unknown: int | None = None
        last = 0
        for first, last, source in index.pieces(table, hint):
            if source is not None:
                start, end = source * BLOCK, (source + last - first) * BLOCK
                if any(written[start // size : (end - 1) // size + 1]):
                    source = None
            if source is None:
                unknown = first if unknown is None else unknown
                continue
            if unknown is not None:
                yield unknown, first, None
                unknown = None
            yield first, last, source
        if unknown is not None:
            yield unknown, last, None

    def wrote(self, disk: int, start: int, end: int) -> None:
        """Bytes `start` to `end` of the disk's volume are about to change."""
        written = self._written.get(disk)
        if written is not None:
            size = _piece(self._bases[disk][1])
            for piece in range(start // size, (end - 1) // size + 1):
                written[piece] = 1

    def close(self) -> None:
        self._memory.give_back(self._reserved)
        self._reserved = 0

    def _index(self, disk: int) -> MovedBlocks | None:
        with self._lock:
            if disk not in self._indexes:
                base, size = self._bases[disk]
                found = None
                if base is not None and self._reserved:
                    found = MovedBlocks(base, self._most, self._stop.is_set)
                    self._written[disk] = bytearray(_pieces(size))
                self._indexes[disk] = found
            return self._indexes[disk]


def _piece(size: int) -> int:
    return max(_PIECE, -(-size // _PIECES))


def _pieces(size: int) -> int:
    return size // _piece(size) + 1


def _slice(table: bytes, number: int) -> bytes:
    return table[number * DIGEST : (number + 1) * DIGEST]
