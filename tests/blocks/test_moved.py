"""Blocks that lie elsewhere on the volume: found, copied there, and never believed."""

from __future__ import annotations

import io
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavelift.blocks import copy_job
from wavelift.blocks.blockmap import DiskMap, MapStore
from wavelift.blocks.copy import Ack, CopyDisk, CopySettings, copy_disks
from wavelift.blocks.digest import BLOCK, SEGMENT, digests
from wavelift.blocks.errors import BlocksNotThere, UnknownPack
from wavelift.blocks.memory import MemoryBudget
from wavelift.blocks.moved import MovedBlocks
from wavelift.blocks.pack import Codec, PackReader
from wavelift.blocks.plan import Intervals, ranges
from wavelift.blocks.sink import Receipt
from wavelift.blocks.volume import VolumeWriter
from wavelift.blocks.worktable import WorkTable

from .conftest import GOLDEN, read

MIB = 1 << 20


def map_of(folder: Path, content: bytes, size: int | None = None) -> DiskMap:
    """The map of a disk that begins with `content`."""
    size = size or len(content)
    work = WorkTable(folder / "work", size)
    work.write(0, digests(memoryview(content)))
    found = MapStore(folder).freeze("sda", 1, work)
    work.close()
    return found


class VolumeSink:
    """A volume in a file that takes copies, as the gateway does."""

    takes_copies = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.copied = self.wire = self.refused = 0
        self.versions: set[int] = set()

    def put(self, sequence: int, pack: memoryview) -> Receipt:
        data = bytes(pack)
        with self.path.open("r+b") as file:
            writer = VolumeWriter("d-1", self.path.stat().st_size, file.fileno(), None)
            reader = PackReader(io.BytesIO(data).readinto, copies=True)
            written = writer.take(reader)
        self.versions.add(int.from_bytes(data[8:10], "little"))
        self.wire += len(data)
        self.copied += sum(record.length for record, _ in read(data, copies=True)[1] if record.codec is Codec.COPY)
        self.refused += sum(length for _, length in written.missing)
        if written.missing:
            raise BlocksNotThere("d-1", written.missing)
        return Receipt(written.blocks, written.bytes, len(data), 0.0)

    def close(self) -> None:
        return None


class Content:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def readinto(self, offset: int, view: memoryview) -> None:
        view[:] = self.data[offset : offset + len(view)]


def increment(
    folder: Path, old: bytes, new: bytes, held: bytes | None = None, done: int = 0
) -> tuple[VolumeSink, list[Ack]]:
    """Replicate `new` onto a volume with `held` whose map says `old`; the first `done` bytes are done."""
    volume = folder / "volume"
    volume.write_bytes(old if held is None else held)
    sink = VolumeSink(volume)
    work = ranges([(0, len(new), False)], len(new), Intervals([(0, done)] if done else []))
    disk = CopyDisk("sda", "d-1", len(new), Content(new), work, lambda: sink, 2 * MIB, map_of(folder, old))
    acks: list[Ack] = []
    copy_disks(CopySettings("m", 2, 1), [disk], acks.append)
    assert volume.read_bytes() == new
    table = bytearray(digests(memoryview(bytes(len(new)))))
    for ack in acks:
        for offset, part in ack.tables:
            table[offset // BLOCK * 32 : offset // BLOCK * 32 + len(part)] = part
    assert table[done // BLOCK * 32 :] == digests(memoryview(new))[done // BLOCK * 32 :]
    return sink, acks


def noise(blocks: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(blocks * BLOCK)


def test_a_copied_file_is_copied_at_the_target_and_costs_its_digests(tmp_path: Path) -> None:
    file = noise(80)
    old = noise(3, 1) + file + bytes(100 * BLOCK)
    new = old[: 90 * BLOCK] + file + old[170 * BLOCK :]
    sink, acks = increment(tmp_path, old, new)
    assert sink.copied == 80 * BLOCK and sink.refused == 0 and sink.wire < 80 * BLOCK // 500
    assert sum(ack.moved_bytes for ack in acks) == sum(ack.changed_bytes for ack in acks) == 80 * BLOCK
    assert sum(ack.sent_bytes for ack in acks) == 0
    assert sink.versions == {2}


def test_what_the_volume_no_longer_holds_is_sent_as_data(tmp_path: Path) -> None:
    """What an earlier attempt wrote is not in the map."""
    file = noise(80)
    first = bytearray(file)
    first[5 * BLOCK] ^= 1
    first[40 * BLOCK : 50 * BLOCK] = noise(10, 3)
    old = file + bytes(80 * BLOCK)
    sink, acks = increment(tmp_path, old, bytes(first) + file, bytes(first) + bytes(80 * BLOCK), 80 * BLOCK)
    # Records of 16 blocks: of the first and of those over the other ten nothing is used.
    assert sink.refused == 3 * MIB
    assert sum(ack.moved_bytes for ack in acks) == 2 * MIB and sum(ack.sent_bytes for ack in acks) == 3 * MIB
    assert sum(ack.wire_bytes for ack in acks) == sink.wire > 3 * MIB


def test_a_shift_by_one_block_overwrites_what_it_would_copy(tmp_path: Path) -> None:
    old = noise(96)
    sink, _ = increment(tmp_path, old, noise(1, 1) + old[:-BLOCK])
    # Where this copy has written before, it does not look.
    assert sink.refused <= 2 * MIB


@given(st.lists(st.tuples(st.integers(0, 31), st.integers(1, 12), st.integers(0, 31)), max_size=6), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_whatever_moves_where_the_volume_ends_as_the_source(moves: list[tuple[int, int, int]], seed: int) -> None:
    old = bytearray(noise(40, seed) + b"x" * 512)
    old[8 * BLOCK : 11 * BLOCK] = bytes(3 * BLOCK)
    new = bytearray(old)
    for source, count, target in moves:
        new[target * BLOCK : (target + count) * BLOCK] = new[source * BLOCK : (source + count) * BLOCK]
    new = new[: len(old)].ljust(len(old), b"\1")
    with tempfile.TemporaryDirectory() as folder:
        increment(Path(folder), bytes(old), bytes(new))


@pytest.mark.parametrize("seed", [0, 1])
def test_shuffled_blocks_leave_room_in_their_pack_for_what_is_not_found(tmp_path: Path, seed: int) -> None:
    """What the copy has overwritten stands beside what is in no index: together one record, not one each."""
    old = noise(256, seed)
    order = list(range(256))
    random.Random(seed).shuffle(order)
    sink, _ = increment(tmp_path, old, b"".join(old[at * BLOCK : (at + 1) * BLOCK] for at in order))
    assert sink.copied


def test_the_index_is_bounded_and_long_runs_are_found_in_it(tmp_path: Path) -> None:
    old = noise(512)
    base = map_of(tmp_path, old, 4 * SEGMENT)
    for most in (1 << 14, 1 << 10):
        index = MovedBlocks(base, most)
        assert len(index) <= most
        table = digests(memoryview(old))[100 * 32 : 400 * 32]
        pieces = list(index.pieces(table))
        assert [piece[:2] for piece in pieces][-1][1] == 300
        assert sum(last - first for first, last, source in pieces if source is not None) > 200
        assert all(source in (None, 100 + first) for first, _, source in pieces)
    # A run goes on where the last one ended, whether its blocks are in the index or not.
    one = digests(memoryview(old))[77 * 32 : 78 * 32]
    assert list(index.pieces(one, 77)) == [(0, 1, 77)]
    assert list(index.pieces(digests(memoryview(noise(1, 9))), 77)) == [(0, 1, None)]


def test_without_memory_for_an_index_there_is_none(tmp_path: Path) -> None:
    file = noise(32)
    disk = CopyDisk("sda", "d-1", 64 * BLOCK, Content(file + file), [], lambda: None, 2 * MIB)  # type: ignore[arg-type,return-value]
    disk.base = map_of(tmp_path, file + bytes(32 * BLOCK))
    for total, found in ((4 * MIB, None), (24 * MIB, 0)):
        memory = MemoryBudget(total)
        job = copy_job.Job(CopySettings("m", 2, memory=memory), [disk], lambda _ack: None)
        assert list(job.elsewhere.pieces(0, digests(memoryview(file)), None)) == [(0, 32, found)]
        assert 0 < memory.used <= 8 * MIB if found == 0 else memory.used == 0
        job.elsewhere.close()
        assert memory.used == 0


def test_who_has_no_volume_refuses_a_pack_with_copies() -> None:
    data = (GOLDEN / "copy.pack").read_bytes()
    with pytest.raises(UnknownPack, match="codec 3"):
        read(data)
    assert [record.origin for record, _ in read(data, copies=True)[1]] == [(0, 2 * BLOCK), None, None, (1, BLOCK)]
    with pytest.raises(UnknownPack, match="codec 3"):
        read(data[:8] + b"\x01" + data[9:], copies=True)
