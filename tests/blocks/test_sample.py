"""A sample is drawn from all blocks alike, and names what a disk no longer holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from wavelift.blocks.blockmap import MapStore
from wavelift.blocks.compare import SourceTables
from wavelift.blocks.digest import BLOCK, SEGMENT, ZERO_DIGEST
from wavelift.blocks.readback import ReadBack
from wavelift.blocks.sample import differing, draw
from wavelift.sources.image import ImageSource

SIZE = 2 * SEGMENT + 3 * BLOCK + 512
DATA = [1, 2, 3, 8000, 2 * SEGMENT // BLOCK + 1, 2 * SEGMENT // BLOCK + 3]


def disk(path: Path) -> Path:
    with path.open("wb") as file:
        for block in DATA:
            file.seek(block * BLOCK)
            file.write(bytes([block % 251 + 1]) * min(BLOCK, SIZE - block * BLOCK))
        file.truncate(SIZE)
    return path


def test_each_block_is_as_likely_as_any_other(tmp_path: Path) -> None:
    with ReadBack(disk(tmp_path / "disk"), SIZE) as read:
        found = MapStore(tmp_path / "maps").freeze("sda", 1, read)
    counts: Counter[int] = Counter()
    for seed in range(120):
        sample = draw(found, 2, 1, seed)
        (zero,) = [at for at, digest in sample.blocks if digest == ZERO_DIGEST]
        assert zero // BLOCK not in DATA and sample.data_drawn == 2
        counts.update(at // BLOCK for at, digest in sample.blocks if digest != ZERO_DIGEST)
    assert set(counts) == set(DATA) and all(20 < count < 60 for count in counts.values()), counts
    assert draw(found, 2, 1, 7) == draw(found, 2, 1, 7)
    every = draw(found, 99, 0, 1)
    assert [at // BLOCK for at, _ in every.blocks] == DATA
    assert (every.data_blocks, every.data_blocks + every.zero_blocks) == (6, 2 * SEGMENT // BLOCK + 4)
    within = draw(found, 99, 99, 1, [(2 * BLOCK, 5 * BLOCK), (2 * SEGMENT, SIZE)])
    assert [at // BLOCK for at, _ in within.blocks] == [2, 3, 4, *range(2 * SEGMENT // BLOCK, 2 * SEGMENT // BLOCK + 4)]


def test_the_chance_that_is_named_is_not_more_than_there_is(tmp_path: Path) -> None:
    moment = ImageSource(disk(tmp_path / "disk")).open()
    try:
        found = MapStore(tmp_path / "maps").freeze("sda", 1, SourceTables(moment))
    finally:
        moment.close()
    hits = sum(any(at == 8000 * BLOCK for at, _ in draw(found, 2, 0, seed).blocks) for seed in range(120))
    assert hits / 120 > draw(found, 2, 0, 1).chance(0) - 0.15
    assert (draw(found, 6, 0, 1).chance(0), draw(found, 0, 5, 1).chance(0.01)) == (1.0, 0.0)


def test_what_changed_since_is_found_in_the_sample(tmp_path: Path) -> None:
    path = disk(tmp_path / "disk")
    with ReadBack(path, SIZE) as read:
        sample = draw(MapStore(tmp_path / "maps").freeze("sda", 1, read), 99, 0, 1)
    with path.open("r+b") as file:
        for at in (3 * BLOCK + 9, SIZE - 1):
            file.seek(at)
            file.write(b"?")
    with path.open("rb") as file:

        def read(at: int, length: int) -> memoryview:
            file.seek(at)
            return memoryview(file.read(length))

        assert list(differing(sample.blocks, SIZE, read)) == [3 * BLOCK, SIZE - 512]
