"""Comparing disks: exactly the blocks that differ are found, whatever the two sides are."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavelift.blocks.blockmap import DiskMap, MapStore
from wavelift.blocks.compare import SizesDiffer, SourceTables, differences
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, SEGMENT_BLOCKS, blocks_of
from wavelift.blocks.readback import ReadBack
from wavelift.blocks.worktable import WorkTable
from wavelift.sources.image import ImageSource

SIZE = 2 * SEGMENT + 3 * BLOCK + 512
# About the edges of segments and of the disk, where neighbours and a last partial block meet.
NEAR = st.sampled_from([0, SEGMENT_BLOCKS, 2 * SEGMENT_BLOCKS]).flatmap(lambda at: st.integers(max(0, at - 3), at + 3))
BLOCKS = st.integers(0, blocks_of(SIZE) - 1) | NEAR


def frozen(store: MapStore, generation: int, content: dict[int, int]) -> DiskMap:
    """A map whose blocks have the digests `content` says, and are zero elsewhere."""
    work = WorkTable(store.folder / "work", SIZE)
    for block, value in content.items():
        work.write(block * BLOCK, value.to_bytes(DIGEST, "little"))
    work.sync()
    found = store.freeze("sda", generation, work)
    work.close()
    (store.folder / "work").unlink()
    return found


def expected(blocks: set[int]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for block in sorted(blocks):
        start, end = block * BLOCK, min(SIZE, (block + 1) * BLOCK)
        if merged and merged[-1][1] == start:
            start = merged.pop()[0]
        merged.append((start, end))
    return merged


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(BLOCKS, st.integers(0, 3)), st.dictionaries(BLOCKS, st.integers(0, 3)))
def test_exactly_the_blocks_that_differ_are_found(left: dict[int, int], right: dict[int, int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = MapStore(Path(folder))
        found = list(differences(frozen(store, 1, left), frozen(store, 2, right)))
    assert found == expected({block for block in {*left, *right} if left.get(block, 0) != right.get(block, 0)})


def test_what_is_read_is_compared_with_a_map_or_with_a_source(tmp_path: Path) -> None:
    image, volume = tmp_path / "image", tmp_path / "volume"
    for path in (image, volume):
        with path.open("wb") as file:
            file.truncate(SIZE)
            for offset in (5, SEGMENT - 2 * BLOCK, 2 * SEGMENT + 7):
                file.seek(offset)
                file.write(b"the same on both" * BLOCK)
            file.truncate(SIZE)
    with volume.open("r+b") as file:
        for offset in (3 * BLOCK, SEGMENT - 1, SEGMENT, SIZE - 1):
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ 16]))
    wrong = expected({3, SEGMENT_BLOCKS - 1, SEGMENT_BLOCKS, blocks_of(SIZE) - 1})
    with closing(ImageSource(image).open()) as moment, ReadBack(volume, SIZE) as there:
        source = SourceTables(moment)
        assert list(differences(source, there)) == wrong
        # Once more, from the start; and against a map of what was read.
        assert list(differences(there, source)) == wrong
        store = MapStore(tmp_path / "maps")
        assert list(differences(store.freeze("sda", 1, source), there)) == wrong
        assert list(differences(store.freeze("sda", 2, there), there)) == []


def test_disks_of_two_sizes_are_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 2 * BLOCK)
    with ReadBack(path, BLOCK) as short, ReadBack(path, 2 * BLOCK) as whole, pytest.raises(SizesDiffer) as caught:
        list(differences(short, whole))
    assert (caught.value.left, caught.value.right) == (BLOCK, 2 * BLOCK)
