"""Merging what two meta contexts say of the same blocks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wavelift.sources.base import Extent
from wavelift.sources.nbd_status import joined, merge

blocks = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=8)


def flags(start: int, listed: list[tuple[int, int]]) -> dict[int, int]:
    found, at = {}, start
    for length, flag in listed:
        found.update({at + step: flag for step in range(length)})
        at += length
    return found


@given(st.integers(0, 5), st.integers(0, 60), st.none() | blocks, st.none() | blocks)
def test_each_byte_has_the_flags_of_both_lists_and_none_is_left_out(
    start: int, more: int, allocation: list[tuple[int, int]] | None, dirty: list[tuple[int, int]] | None
) -> None:
    size = start + more
    span = dict.fromkeys(range(start, size), 0)
    left = span if allocation is None else flags(start, allocation)
    right = dict.fromkeys(span, 1) if dirty is None else flags(start, dirty)
    wanted = {at: (bool(right[at] & 1), bool(left[at] & 2)) for at in span if at in left and at in right}
    for found in (list(merge(start, size, allocation, dirty)), list(joined(merge(start, size, allocation, dirty)))):
        at, got = start, {}
        for extent in found:
            assert extent.start == at and extent.length > 0
            at += extent.length
            got.update({byte: (extent.dirty, extent.zero) for byte in range(extent.start, at)})
        assert got == wanted


def test_lengths_beyond_32_bits_and_neighbours() -> None:
    large = 3 << 40
    listed = [Extent(0, large, False, True), Extent(large, 5, False, True), Extent(large + 5, 1, True, True)]
    assert list(joined(listed)) == [Extent(0, large + 5, False, True), Extent(large + 5, 1, True, True)]
    assert list(merge(large, 2 * large, [(large, 3)], None)) == [Extent(large, large, True, True)]
