"""Doubted blocks: exactly they are unlike anything, and however many there are, none is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wavelift.agent import doubts
from wavelift.agent.doubts import UNKNOWN_DIGEST, bounded, doubted
from wavelift.blocks.blockmap import DiskMap, FolderTables
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, SEGMENT_BLOCKS, ZERO_DIGEST, blocks_of
from wavelift.blocks.plan import Intervals

SIZE = 2 * SEGMENT + 3 * BLOCK + 512
EDGES = st.sampled_from([0, SEGMENT_BLOCKS, 2 * SEGMENT_BLOCKS])
BLOCKS = st.sets(st.integers(0, blocks_of(SIZE) - 1) | EDGES.flatmap(lambda at: st.integers(max(0, at - 2), at + 2)))


def ranges(blocks: set[int]) -> list[tuple[int, int]]:
    return list(Intervals((at * BLOCK, min(SIZE, (at + 1) * BLOCK)) for at in blocks))


@settings(max_examples=50, deadline=None)
@given(BLOCKS)
def test_exactly_the_doubted_blocks_are_unlike_any_other(blocks: set[int]) -> None:
    found = doubted(DiskMap("sda", SIZE, bytes(3 * DIGEST), FolderTables(Path())), ranges(blocks))
    assert found is not None
    seen = set()
    for number in range(3):
        table = found.table(number)
        for at in range(0, len(table), DIGEST):
            if table[at : at + DIGEST] == UNKNOWN_DIGEST:
                seen.add(number * SEGMENT_BLOCKS + at // DIGEST)
            else:
                assert table[at : at + DIGEST] == ZERO_DIGEST
    assert seen == blocks


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BLOCKS)
def test_many_ranges_become_few_that_cover_them(monkeypatch: pytest.MonkeyPatch, blocks: set[int]) -> None:
    monkeypatch.setattr(doubts, "MAX_RANGES", 4)
    few = bounded(ranges(blocks))
    assert len(few) <= 4 and few == list(Intervals(few))
    covered = Intervals(few)
    assert all(not list(covered.missing(start, end)) for start, end in ranges(blocks))
    if len(ranges(blocks)) <= 4:
        assert few == ranges(blocks)
