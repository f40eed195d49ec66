"""What a copy may build on: whether the target still holds what the state knows of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from wavelift.blocks.blockmap import DiskMap, segments_of
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, blocks_of
from wavelift.blocks.plan import Intervals
from wavelift.blocks.readback import ReadBack
from wavelift.blocks.worktable import WorkTable

# (start, end) in bytes.
Ranges = list[tuple[int, int]]


@dataclass(frozen=True)
class Attempt:
    """A copy that was cut short. `done` of it was acknowledged, with its digests in the file `table`; all else should
    be as `base` says, if there is one. `size` of the disk in bytes. `left` is what the target's `modified` was when the
    copy ended, None when it was killed; `before`, when it began."""

    generation: int
    number: int
    done: Intervals
    table: Path
    base: DiskMap | None
    size: int
    left: int | str | None
    before: int | str | None


def unlike(attempt: Attempt, path: Path, check: Callable[[], None]) -> Ranges | None:
    """Read back what a file or device should hold after an attempt: where it is not its base any more, which what was
    under way may have overwritten; None when it has lost what was acknowledged. Raises `SourceError`, `MapError`,
    OSError."""
    if not attempt.table.exists() or attempt.table.stat().st_size != blocks_of(attempt.size) * DIGEST:
        return None if attempt.done.total else []
    if attempt.base is not None and attempt.base.size != attempt.size:
        return None
    found: Ranges = []
    with closing(WorkTable(attempt.table, attempt.size)) as done, ReadBack(path, attempt.size, check=check) as lies:
        for number in range(segments_of(attempt.size)):
            start, end = number * SEGMENT, min(attempt.size, (number + 1) * SEGMENT)
            undone = list(attempt.done.missing(start, end))
            if attempt.base is None and undone == [(start, end)]:
                continue
            there, brought = lies.table(number), done.table(number)
            before = there if attempt.base is None else attempt.base.table(number)
            at = start
            for first, last in [*undone, (end, end)]:
                if _part(there, at, first) != _part(brought, at, first):
                    return None
                found += [
                    (block, min(end, block + BLOCK))
                    for block in range(first, last, BLOCK)
                    if _part(there, block, block + BLOCK) != _part(before, block, block + BLOCK)
                ]
                at = last
    return list(Intervals(found))


def _part(table: bytes, start: int, end: int) -> bytes:
    """The digests of the blocks of these bytes, from the table of their segment."""
    first = start % SEGMENT // BLOCK
    return table[first * DIGEST : (first + blocks_of(end - start)) * DIGEST]
