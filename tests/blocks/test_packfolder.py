"""A folder of packs: what goes in comes out, at any generation, whatever was given up or damaged in between."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from wavelift.agent.replication import Order, Target, replicate
from wavelift.agent.state import MigrationState
from wavelift.blocks.blockmap import generation_root
from wavelift.blocks.compress import Compression
from wavelift.blocks.digest import BLOCK
from wavelift.blocks.packfolder import FolderError, Generation, PackFolder
from wavelift.blocks.packheld import BlocksLost
from wavelift.blocks.sink import Receipt
from wavelift.blocks.sink_folder import FolderSink
from wavelift.sources.image import ImageSource
from wavelift.sources.packs import PackFolderPointInTime, PackFolderSource

MIB = 1 << 20
SIZE = 12 * MIB + 3 * 512


class Stopped(Exception):
    """The copy was given up."""


class Watch:
    def step(self, name: str) -> None: ...

    def check(self) -> None: ...

    def progress(self, **_: int) -> None: ...


class Stopping:
    """The sink of a copy that is given up after its first pack."""

    takes_copies = False

    def __init__(self, sink: FolderSink) -> None:
        self._sink = sink

    def put(self, sequence: int, pack: memoryview) -> Receipt:
        self._sink.put(sequence, pack)
        raise Stopped

    def close(self) -> None:
        self._sink.close()


class Disk:
    """An image, the agent's state, and the folder it is copied to."""

    def __init__(self, folder: Path, size: int = SIZE) -> None:
        self.path, self.size = folder / "disk.raw", size
        with self.path.open("wb") as file:
            file.truncate(size)
        self.source = random.Random(7)
        self.state = folder / "state"
        self.packs = PackFolder.create(folder / "packs")

    def write(self, offset: int, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def noise(self, offset: int, length: int) -> None:
        self.write(offset, self.source.randbytes(length))

    def copy(self, generation: int, base: int | None) -> Generation:
        order = Order("web", generation, base, [self.target(generation)], compression=Compression(1))
        result = replicate(self.state, order, Watch())
        return self.commit(generation, result)

    def give_up(self, generation: int) -> list[Path]:
        """A copy that is given up; the packs that it left."""
        target = replace(self.target(generation), open_sink=lambda: Stopping(self.packs.sink(generation)))
        with pytest.raises(Stopped):
            replicate(self.state, Order("web", generation, None, [target]), Watch())
        assert self.packs.generations() == []
        return self.files(generation)

    def target(self, generation: int) -> Target:
        return Target("sda", ImageSource(self.path), "folder", lambda: self.packs.sink(generation), 2 * MIB)

    def commit(self, generation: int, result: dict[str, Any]) -> Generation:
        state = MigrationState(self.state, "web")
        found = state.maps("sda").load(generation)
        assert found is not None
        made = self.packs.commit("web", generation, result["base_used"], [(found, result["disks"][0]["consistency"])])
        assert made.root == result["root"] == generation_root([("sda", found.root)]).hex()
        state.commit(generation)
        return made

    def files(self, generation: int) -> list[Path]:
        return sorted((self.packs.folder / "packs" / str(generation)).iterdir())


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def content(opened: PackFolderPointInTime, step: int = MIB) -> bytes:
    found = bytearray(opened.size)
    at = 0
    for extent in opened.extents():
        assert extent.start == at
        at += extent.length
        for start in range(extent.start, at if not extent.zero else extent.start, step):
            opened.readinto(start, memoryview(found)[start : min(at, start + step)])
    assert at == opened.size
    opened.close()
    return bytes(found)


def read(disk: Disk, generation: int | None = None) -> bytes:
    return content(PackFolderSource(disk.packs.folder, generation).open())


def test_every_generation_comes_back(disk: Disk) -> None:
    disk.noise(3000, 5 * MIB)
    disk.write(9 * MIB, b"text that compresses " * 100_000)
    disk.noise(SIZE - 700, 700)
    contents = [disk.path.read_bytes()]
    disk.copy(1, None)
    for generation in (2, 3, 4):
        disk.noise(disk.source.randrange(SIZE - MIB), 90_000)
        disk.write(generation * BLOCK, bytes(2 * BLOCK))
        contents.append(disk.path.read_bytes())
        made = disk.copy(generation, generation - 1)
        assert made.base == generation - 1 and made.packs == len(disk.files(generation)) > 0
    assert disk.packs.generations() == [1, 2, 3, 4]
    for generation, wanted in enumerate(contents, 1):
        assert read(disk, generation) == wanted
    assert read(disk) == contents[-1]
    assert sum(path.stat().st_size for path in disk.files(2)) < 4 * BLOCK


def test_reads_from_any_offset(disk: Disk) -> None:
    disk.noise(0, 4 * MIB)
    disk.copy(1, None)
    disk.noise(MIB + 5, 10)
    disk.copy(2, 1)
    wanted = disk.path.read_bytes()
    opened = PackFolderSource(disk.packs.folder).open()
    for _ in range(60):
        start = disk.source.randrange(6 * MIB)
        view = memoryview(bytearray(disk.source.randrange(1, 3 * MIB)))
        opened.readinto(start, view)
        assert view == wanted[start : start + len(view)]


def test_what_a_given_up_attempt_left_is_never_read(disk: Disk) -> None:
    """The source goes on after packs were written; the next attempt begins anew, and what they left goes."""
    disk.noise(0, SIZE)
    left = disk.give_up(1)
    (disk.packs.folder / "packs/1/9.new").write_bytes(b"half a pack")
    disk.noise(0, SIZE)
    made = disk.copy(1, None)
    assert left and made.packs == len(disk.files(1)) and not set(left) & set(disk.files(1))
    assert read(disk) == disk.path.read_bytes()


def test_a_copy_that_was_stopped_goes_on(disk: Disk) -> None:
    disk.noise(0, SIZE)
    left = disk.give_up(1)
    disk.copy(1, None)
    assert left and set(left) <= set(disk.files(1))
    assert read(disk) == disk.path.read_bytes()


def test_a_missing_pack_keeps_a_generation_from_being_made(disk: Disk) -> None:
    disk.noise(0, SIZE)
    result = replicate(disk.state, Order("web", 1, None, [disk.target(1)]), Watch())
    disk.files(1)[0].unlink()
    with pytest.raises(BlocksLost) as caught:
        disk.commit(1, result)
    assert caught.value.disk == "sda" and 0 < sum(end - start for start, end in caught.value.ranges) <= 2 * MIB
    assert disk.packs.generations() == []


@pytest.mark.parametrize("damage", ["gone", "payload", "header", "cut"])
def test_damage_is_named(disk: Disk, damage: str) -> None:
    disk.noise(0, SIZE)
    disk.copy(1, None)
    victim = max(disk.files(1), key=lambda path: path.stat().st_size)
    raw = bytearray(victim.read_bytes())
    if damage == "gone":
        victim.unlink()
    else:
        raw[300_000 if damage == "payload" else 150] ^= 1
        victim.write_bytes(raw[: len(raw) // 2] if damage == "cut" else raw)
    with pytest.raises(BlocksLost) as caught:
        read(disk)
    error = caught.value
    assert (error.code, error.disk, error.packs) == ("blocks_lost", "sda", [victim])
    wanted, opened = disk.path.read_bytes(), PackFolderSource(disk.packs.folder).open()
    whole = bad = 0
    for start in range(0, SIZE // BLOCK * BLOCK, BLOCK):
        view = memoryview(bytearray(BLOCK))
        try:
            opened.readinto(start, view)
        except BlocksLost as lost:
            assert [(start, start + BLOCK)] == lost.ranges and lost.packs == [victim]
            bad += 1
        else:
            assert view == wanted[start : start + BLOCK]
            whole += 1
    assert bad and whole >= (SIZE - 2 * MIB) // BLOCK - 1


@pytest.mark.parametrize("name", ["generations/1", "generations/1.packs", "maps/sda/1.map"])
def test_damage_of_a_record_is_found(disk: Disk, name: str) -> None:
    disk.noise(0, MIB)
    disk.copy(1, None)
    path = disk.packs.folder / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)
    with pytest.raises(Exception, match=r"damaged|checksum") as caught:
        read(disk)
    assert hasattr(caught.value, "remedy")


@pytest.mark.parametrize(
    "change", [{"packs": "1"}, {"disks": [{"disk": 7}]}, {"base": 1.5}, {"root": None}, {"version": 2}]
)
def test_a_record_of_another_shape_is_refused(disk: Disk, change: dict[str, Any]) -> None:
    disk.noise(0, MIB)
    disk.copy(1, None)
    path = disk.packs.folder / "generations/1"
    body = json.dumps({**json.loads(path.read_bytes()[9:]), **change}).encode()
    path.write_bytes(b"%08x %s" % (zlib.crc32(body), body))
    with pytest.raises(FolderError, match=r"damaged|another version"):
        disk.packs.load(1)


def test_a_generation_is_made_once(disk: Disk) -> None:
    disk.noise(0, MIB)
    made = disk.copy(1, None)
    found = disk.packs.map(made, made.disks[0])
    assert disk.packs.commit("web", 1, None, [(found, "offline")]) == made
    disk.noise(0, MIB)
    disk.copy(2, 1)
    newer = disk.packs.load(2)
    with pytest.raises(FolderError, match="another generation 1"):
        disk.packs.commit("web", 1, None, [(disk.packs.map(newer, newer.disks[0]), "offline")])
    assert disk.packs.load(1) == made


def test_one_writer_at_a_time(disk: Disk) -> None:
    with disk.packs.held(), pytest.raises(FolderError, match="Another copy"), PackFolder(disk.packs.folder).held():
        raise AssertionError("two hold it")
    with disk.packs.held():
        pass


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(FolderError, match="not empty"):
        PackFolder.create(tmp_path)
    with pytest.raises(FolderError, match="no folder of packs"):
        PackFolder(tmp_path)


def test_packs_that_a_killed_process_left(disk: Disk, tmp_path: Path) -> None:
    """Killed while it writes: each pack is whole or has no name of one, and a later copy goes on."""
    disk.noise(0, SIZE)
    program = (
        "import sys; from pathlib import Path; import tests.blocks.test_packfolder as t\n"
        "d = t.Disk.__new__(t.Disk); f = Path(sys.argv[1]); d.path, d.state = f / 'disk.raw', f / 'state'\n"
        "d.packs = t.PackFolder(f / 'packs'); d.copy(1, None)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    while child.poll() is None and not list(tmp_path.glob("packs/packs/1/*.pack")):
        time.sleep(0.001)
    child.kill()
    child.wait()
    for path in tmp_path.glob("packs/packs/1/*.pack"):
        assert blake3(path.read_bytes()).hexdigest() == path.stem
    disk.copy(1, None)
    assert read(disk) == disk.path.read_bytes()


@settings(max_examples=8, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 63), st.integers(1, 40), st.integers(0, 3)), max_size=6),
        min_size=1,
        max_size=4,
    )
)
def test_any_history_comes_back(
    tmp_path_factory: pytest.TempPathFactory, history: list[list[tuple[int, int, int]]]
) -> None:
    """Blocks written with few different contents, zeroes among them, so that old content comes again."""
    disk = Disk(tmp_path_factory.mktemp("history"), 64 * BLOCK)
    contents = []
    for generation, writes in enumerate(history, 1):
        for start, count, kind in writes:
            for block in range(start, min(64, start + count)):
                disk.write(block * BLOCK, bytes([kind]) * BLOCK)
        contents.append(disk.path.read_bytes())
        disk.copy(generation, generation - 1 or None)
    for generation, wanted in enumerate(contents, 1):
        assert read(disk, generation) == wanted
