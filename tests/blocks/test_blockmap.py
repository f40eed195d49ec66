"""Block maps: golden file, what a root binds, sharing, and damage."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavelift.blocks.blockmap import FolderTables, MapStore, decode_index, disk_root, encode_index, generation_root
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, digests
from wavelift.blocks.errors import MapError, MapTooLarge, UnknownMap
from wavelift.blocks.worktable import WorkTable

from .conftest import GOLDEN, pattern

SIZE = 2 * SEGMENT + 512


def frozen(folder: Path, generation: int, writes: dict[int, bytes], size: int = SIZE) -> MapStore:
    work = WorkTable(folder / f"{generation}.table", size)
    for offset, data in writes.items():
        work.write(offset, digests(memoryview(data)))
    work.sync()
    store = MapStore(folder / "maps")
    store.freeze("sda", generation, work)
    work.close()
    return store


def test_the_golden_map_and_its_roots(tmp_path: Path) -> None:
    store = frozen(tmp_path, 1, {0: pattern(BLOCK), 2 * SEGMENT: pattern(512)})
    golden = (GOLDEN / "1.map").read_bytes()
    assert (tmp_path / "maps/1.map").read_bytes() == golden
    found = store.load(1)
    assert found is not None and (found.disk, found.size) == ("sda", SIZE)
    assert found.root.hex() == "9482bcf3ce001b659a1f78016dc48d91d71a2ca89c8b784d0e321b9bfbf545c7"
    assert (
        generation_root([("sda", found.root)]).hex()
        == "3794419ae4fac24b04a43bcf1d97b884aeb7f5785bdddfdefd56a76a04a8a14c"
    )


def test_zero_segments_take_no_space_and_shared_ones_are_written_once(tmp_path: Path) -> None:
    frozen(tmp_path, 1, {0: pattern(BLOCK), 2 * SEGMENT: pattern(512)})
    segments = tmp_path / "maps/segments"
    before = {path.name: path.stat().st_ino for path in segments.iterdir()}
    assert len(before) == 2
    store = frozen(tmp_path, 2, {0: pattern(2 * BLOCK), 2 * SEGMENT: pattern(512)})
    after = {path.name: path.stat().st_ino for path in segments.iterdir()}
    assert len(after) == 3 and before.items() <= after.items()
    store.prune([2])
    assert store.load(1) is None and len(list(segments.iterdir())) == 2
    second = store.load(2)
    assert second is not None
    assert second.table(0)[: 2 * DIGEST] == digests(memoryview(pattern(2 * BLOCK)))
    assert second.table(1) == bytes(SEGMENT // BLOCK * DIGEST)
    assert second.table(2) == digests(memoryview(pattern(512)))


def test_a_root_binds_size_and_disk_names() -> None:
    assert disk_root(512, bytes(32)) != disk_root(1024, bytes(32))
    one, two = disk_root(512, bytes(32)), disk_root(1024, bytes(32))
    assert generation_root([("a", one), ("b", two)]) == generation_root([("b", two), ("a", one)])
    assert generation_root([("a", one), ("b", two)]) != generation_root([("a", two), ("b", one)])


def test_every_flipped_byte_of_an_index_is_found(tmp_path: Path) -> None:
    golden = (GOLDEN / "1.map").read_bytes()
    for place in range(len(golden)):
        bad = bytearray(golden)
        bad[place] ^= 0x10
        with pytest.raises(MapError):
            decode_index(bytes(bad), FolderTables(tmp_path))
        with pytest.raises(MapError):
            decode_index(golden[:place], FolderTables(tmp_path))


def test_a_damaged_or_missing_table_is_found(tmp_path: Path) -> None:
    store = frozen(tmp_path, 1, {0: pattern(BLOCK)})
    (table,) = (tmp_path / "maps/segments").iterdir()
    found = store.load(1)
    assert found is not None
    content = bytearray(table.read_bytes())
    content[5] ^= 1
    table.write_bytes(content)
    with pytest.raises(MapError, match="damaged"):
        found.table(0)
    table.unlink()
    with pytest.raises(MapError, match="cannot be read"):
        found.table(0)


def test_what_is_unknown_or_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    golden = (GOLDEN / "1.map").read_bytes()
    for place, version, flags in ((8, 2, 0), (10, 1, 1)):
        bad = bytearray(golden)
        bad[place : place + 2] = (version if place == 8 else flags).to_bytes(2, "little")
        with pytest.raises(UnknownMap) as caught:
            decode_index(bytes(bad), FolderTables(tmp_path))
        assert (caught.value.version, caught.value.flags) == (version, flags)
    store = frozen(tmp_path, 1, {0: pattern(BLOCK)})
    found = store.load(1)
    assert found is not None
    tracemalloc.start()
    for path in (*(tmp_path / "maps/segments").iterdir(), tmp_path / "maps/1.map"):
        with path.open("r+b") as file:
            file.truncate(1 << 40)
    with pytest.raises(MapTooLarge):
        found.table(0)
    with pytest.raises(MapTooLarge, match=r"1\.map"):
        store.load(1)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    with pytest.raises(MapTooLarge, match="id"):
        encode_index("x" * 1025, 512, bytes(DIGEST))


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_bytes_crash_the_decoder(data: bytes) -> None:
    for start in (b"", b"WLMAP\r\n\0"):
        with pytest.raises(MapError):
            decode_index(start + data, FolderTables(Path()))


@given(st.text(min_size=1, max_size=20), st.integers(1, 5))
def test_index_round_trip(disk: str, segments: int) -> None:
    size, joined = segments * SEGMENT, pattern(segments * DIGEST)
    found = decode_index(encode_index(disk, size, joined), FolderTables(Path()))
    assert (found.disk, found.size, found.segments) == (disk, size, joined)
