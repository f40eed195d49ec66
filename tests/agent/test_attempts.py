"""Attempts that are cut short, resumed and repeated: what is mapped at the end is what the volume holds."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.blocks import reader
from wavelift.agent.journal import encode_line
from wavelift.agent.replication import Order, Target, replicate
from wavelift.agent.state import MigrationState
from wavelift.blocks.blockmap import generation_root
from wavelift.blocks.digest import BLOCK
from wavelift.blocks.sink import Receipt
from wavelift.blocks.sink_local import LocalSink
from wavelift.service.errors import Conflict
from wavelift.sources.base import Consistency, Extent, PointInTime, Source
from wavelift.sources.together import Since

BLOCKS = 600
SIZE = BLOCKS * BLOCK
MIB = 1 << 20
ALL = 10**6


class Guest:
    """A disk in memory with a bitmap for each of its moments, of which any may be lost."""

    kind = host = "guest"

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.moments: dict[str, set[int]] = {"t1": set()}
        self.lost: set[str] = set()

    @property
    def token(self) -> str:
        return f"t{len(self.moments)}"

    def write(self, first: int, last: int, data: bytes | None = None) -> None:
        """Blocks `first` to `last` - 1; zeroes without data."""
        self.content[first * BLOCK : last * BLOCK] = data or bytes((last - first) * BLOCK)
        for dirty in self.moments.values():
            dirty.update(range(first, last))

    def move_on(self) -> None:
        """What is opened from now on is of another moment."""
        self.moments[f"t{len(self.moments) + 1}"] = set()

    def dirty(self, token: str | None) -> set[int] | None:
        return None if token is None or token in self.lost or token not in self.moments else set(self.moments[token])

    def open(self, token: str | None = None) -> PointInTime:
        return Moment(self, Since(token))

    def open_together(self, disks: Sequence[tuple[Source, Since]]) -> Sequence[PointInTime]:
        return [Moment(self, since) for _, since in disks]

    def forget(self, migration: str) -> None:
        self.moments.clear()

    def recover(self, disks: Sequence[Source]) -> None:
        return None


class Moment:
    consistency = Consistency.CRASH
    size = SIZE
    notes = ()

    def __init__(self, guest: Guest, since: Since) -> None:
        self.token = guest.token
        self._content = bytes(guest.content)
        self._dirty, self._written = guest.dirty(since.base), guest.dirty(since.begun)
        self.tracked = self._dirty is not None

    def extents(self) -> Iterator[Extent]:
        return self._extents(set(range(BLOCKS)) if self._dirty is None else self._dirty)

    def written(self) -> Iterator[Extent] | None:
        return None if self._written is None else self._extents(self._written)

    def _extents(self, dirty: set[int]) -> Iterator[Extent]:
        for block in range(BLOCKS):
            zero = self._content[block * BLOCK : (block + 1) * BLOCK] == bytes(BLOCK)
            yield Extent(block * BLOCK, BLOCK, block in dirty, zero)

    def readinto(self, offset: int, view: memoryview) -> None:
        view[:] = self._content[offset : offset + len(view)]

    def close(self) -> None:
        return None


class CutShort(Exception):
    pass


class CutSink:
    takes_copies = False

    def __init__(self, volume: Path, packs: int) -> None:
        self._sink = LocalSink(volume)
        self._left = packs

    def put(self, sequence: int, pack: memoryview) -> Receipt:
        if not self._left:
            raise CutShort
        self._left -= 1
        return self._sink.put(sequence, pack)

    def close(self) -> None:
        self._sink.close()


class Silent:
    def step(self, name: str) -> None:
        return None

    def check(self) -> None:
        return None

    def progress(self, **_: int) -> None:
        return None


class Migration:
    def __init__(self, folder: Path, content: bytes) -> None:
        self.guest = Guest(content)
        self.volume = folder / "volume"
        self.volume.write_bytes(bytes(SIZE))
        self._folder = folder / "state"
        self.state = MigrationState(self._folder, "web")

    def run(self, generation: int, base: int | None, packs: int = ALL) -> dict[str, Any]:
        target = Target("sda", self.guest, "d-1", lambda: CutSink(self.volume, packs), 2 * MIB)
        return replicate(self._folder, Order("web", generation, base, [target], 1), Silent())

    def cut(self, generation: int, base: int | None, packs: int) -> None:
        with pytest.raises(CutShort):
            self.run(generation, base, packs)

    def proven(self, result: dict[str, Any]) -> None:
        """That source, volume and map are one."""
        assert self.volume.read_bytes() == self.guest.content
        assert generation_root([("sda", reader.disk_root(self.volume, SIZE))]).hex() == result["root"]

    def committed(self, generation: int, base: int | None) -> None:
        self.proven(self.run(generation, base))
        self.state.commit(generation)
        self.guest.move_on()


@pytest.fixture
def full(tmp_path: Path) -> Migration:
    """Generation 1 of a disk without zeroes."""
    found = Migration(tmp_path, random.Random(1).randbytes(SIZE))
    found.committed(1, None)
    return found


def test_a_tracked_attempt_goes_on_as_a_scan_of_the_same_moment(full: Migration) -> None:
    """What it took over of the base is not what holds where the guest discarded."""
    # More pieces of work than are planned ahead, so that the attempt is cut short before it comes to the discard.
    for block in range(0, 400, 2):
        full.guest.write(block, block + 1, random.Random(block).randbytes(BLOCK))
    full.guest.write(450, 590)
    full.cut(2, 1, packs=2)
    result = full.run(2, 1)
    assert result["tracker"] == "scan"
    full.proven(result)


def test_a_tracked_attempt_goes_on_as_a_scan_of_a_later_moment(full: Migration) -> None:
    """Its own bitmap is there and tells what still stands; the one of the base is gone."""
    full.guest.write(0, 50, random.Random(2).randbytes(50 * BLOCK))
    full.cut(2, 1, packs=1)
    full.guest.move_on()
    full.guest.write(100, 190)
    full.guest.lost.add("t1")
    result = full.run(2, 1)
    assert result["tracker"] == "scan" and "moved on" in result["notes"][0]
    full.proven(result)


@pytest.mark.parametrize("tracked", [True, False])
def test_doubts_where_the_base_has_nothing_but_zeroes_are_sent(tmp_path: Path, tracked: bool) -> None:
    empty = Migration(tmp_path, bytes(SIZE))
    empty.run(1, None)
    with empty.volume.open("r+b") as file:
        file.seek(5 * BLOCK)
        file.write(b"x")
    empty.guest.write(0, 20)
    empty.state.doubt(1, {"sda": [(5 * BLOCK, 6 * BLOCK)]})
    empty.guest.move_on()
    if not tracked:
        empty.guest.lost.add("t1")
    result = empty.run(2, 1)
    assert (result["tracker"], result["disks"][0]["changed_bytes"]) == ("bitmap" if tracked else "scan", BLOCK)
    empty.proven(result)


def test_a_committed_generation_is_not_replicated_again(full: Migration) -> None:
    before = full.volume.read_bytes()
    full.guest.write(0, 9, b"temp" * (9 * BLOCK // 4))
    with pytest.raises(Conflict, match="1 cannot be replicated any more"):
        full.run(1, None)
    assert full.volume.read_bytes() == before and full.state.touched() == []
    full.committed(2, 1)
    with pytest.raises(Conflict):
        full.run(1, None)


def test_what_another_version_of_the_agent_began_is_sent_again(full: Migration) -> None:
    full.guest.write(0, 300, random.Random(3).randbytes(300 * BLOCK))
    full.cut(2, 1, packs=2)
    journal = full.state.journal(2)
    former = [
        {"tokens": [full.guest.token], "disks": [["sda", "d-1"]], "base": 1, "notes": []},
        {"disk": 0, "ranges": [[0, MIB]]},
    ]
    journal.write_bytes(b"".join(encode_line(line) for line in former))
    full.guest.write(0, 100)
    result = full.run(2, 1)
    assert "everything is sent again" in result["notes"][0]
    full.proven(result)
