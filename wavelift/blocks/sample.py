"""A random sample of a disk's blocks with their digests, and how likely it is to show damage."""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, ZERO_DIGEST, blocks_of, digest


class Tables(Protocol):
    """A disk's digests, of which those of zero segments need not be read."""

    @property
    def size(self) -> int: ...

    def segment(self, number: int) -> bytes: ...

    def table(self, number: int) -> bytes: ...


@dataclass(frozen=True)
class Sample:
    """(offset in bytes, digest) in order, of `data_blocks` that hold data and `zero_blocks` that hold none."""

    blocks: list[tuple[int, bytes]]
    data_blocks: int
    zero_blocks: int

    @property
    def data_drawn(self) -> int:
        return sum(found != ZERO_DIGEST for _, found in self.blocks)

    def chance(self, share: float) -> float:
        """At least how likely one of the blocks drawn is damaged when this share of those with data is, or one block
        if that is more; 0 to 1."""
        if not self.data_blocks:
            return 1.0
        share = max(share, 1 / self.data_blocks)
        whole = self.data_drawn == self.data_blocks
        return 1.0 if whole else float(1 - (1 - min(1.0, share)) ** self.data_drawn)


def draw(
    tables: Tables,
    data: int,
    zeroes: int,
    seed: int,
    within: Iterable[tuple[int, int]] | None = None,
    check: Callable[[], None] = lambda: None,
) -> Sample:
    """Up to `data` blocks that hold data and `zeroes` that hold none, each as likely as any other; the same ones for
    the same seed. `within` (bytes, in order) leaves the rest out. `check` may raise to stop early.
    """
    segments: list[int] = []
    runs: list[list[tuple[int, int]]] = []
    counts: dict[bool, list[int]] = {True: [], False: []}
    for number, found in _by_segment([(0, tables.size)] if within is None else within, tables.size):
        check()
        of_data = _of_data(tables, number, found)
        segments.append(number)
        runs.append(found)
        counts[True].append(of_data)
        counts[False].append(sum(last - first for first, last in found) - of_data)
    rng = random.Random(seed)
    blocks: list[tuple[int, bytes]] = []
    for kind, wanted in ((True, data), (False, zeroes)):
        sums = list(itertools.accumulate(counts[kind]))
        total = sums[-1] if sums else 0
        chosen = sorted(rng.sample(range(total), min(wanted, total)))
        for at, picks in itertools.groupby(chosen, partial(bisect.bisect_right, sums)):
            check()
            before = sums[at] - counts[kind][at]
            members = _members(tables, segments[at], runs[at], kind)
            table = tables.table(segments[at])
            for pick in picks:
                index = members[pick - before]
                blocks.append((segments[at] * SEGMENT + index * BLOCK, table[index * DIGEST : (index + 1) * DIGEST]))
    return Sample(sorted(blocks), sum(counts[True]), sum(counts[False]))


def differing(
    blocks: Iterable[tuple[int, bytes]],
    size: int,
    read: Callable[[int, int], memoryview],
    check: Callable[[], None] = lambda: None,
) -> Iterator[int]:
    """Offsets of the blocks for which `read(offset, length)` gives something else than their digest names."""
    for offset, known in blocks:
        check()
        if digest(read(offset, min(BLOCK, size - offset))) != known:
            yield offset


def _by_segment(within: Iterable[tuple[int, int]], size: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Per segment touched, the runs of blocks (first, last + 1, counted within the segment)."""

    def pieces() -> Iterator[tuple[int, int, int]]:
        for start, end in within:
            while start < end:
                number = start // SEGMENT
                stop = min(end, (number + 1) * SEGMENT, size)
                yield number, start % SEGMENT // BLOCK, blocks_of(stop - number * SEGMENT)
                start = stop

    for number, found in itertools.groupby(pieces(), lambda piece: piece[0]):
        yield number, [(first, last) for _, first, last in found]


def _of_data(tables: Tables, number: int, runs: list[tuple[int, int]]) -> int:
    """How many blocks of a segment, within the runs, hold data."""
    words = _first_words(tables, number)
    return sum(last - first - words[first:last].count(0) for first, last in runs) if words else 0


def _members(tables: Tables, number: int, runs: list[tuple[int, int]], data: bool) -> list[int]:
    """The blocks of a segment, within the runs, that hold data, or that hold none."""
    words = _first_words(tables, number)
    if not words:
        return [] if data else [index for first, last in runs for index in range(first, last)]
    return [index for first, last in runs for index in range(first, last) if (words[index] != 0) == data]


def _first_words(tables: Tables, number: int) -> list[int]:
    """The first eight bytes of each digest of a segment as a number, which is 0 for zeroes and for no data, as good as
    surely; empty for a segment of zeroes. Looking at whole digests takes twenty times as long."""
    if tables.segment(number) == ZERO_DIGEST:
        return []
    return memoryview(tables.table(number)).cast("Q")[:: DIGEST // 8].tolist()
