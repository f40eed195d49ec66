"""Planning, the copy pipeline without a network, read-back, and the raw source."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.blocks import reader
from wavelift.blocks.blockmap import MapStore, disk_root, segment_digest
from wavelift.blocks.compress import Compression
from wavelift.blocks.copy import Ack, CopyDisk, CopySettings, copy_disks
from wavelift.blocks.copy_worker import changed_runs
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, SEGMENT_BLOCKS, ZERO_DIGEST, digest, digests
from wavelift.blocks.errors import SinkUnreachable, SourceError
from wavelift.blocks.pack import Codec
from wavelift.blocks.plan import Intervals, Range, ranges
from wavelift.blocks.readback import ReadBack, Uncached
from wavelift.blocks.sink import Receipt
from wavelift.blocks.worktable import WorkTable
from wavelift.sources.image import ImageSource

from .conftest import TEXT, pattern, read

MIB = 1 << 20
SIZE = 6 * MIB + 512


class MemorySink:
    """A true sink: reads each pack and keeps the disk in memory, old content included."""

    takes_copies = False

    def __init__(self, size: int, fail_after: int = 10**9) -> None:
        self.content = bytearray(b"\xaa" * size)
        self.wire = self.largest = 0
        self.codecs: set[Codec] = set()
        self._left = fail_after
        self._lock = threading.Lock()

    def put(self, sequence: int, pack: memoryview) -> Receipt:
        with self._lock:
            if self._left == 0:
                raise SinkUnreachable("It is gone.", "Wait.")
            self._left -= 1
            reader, records = read(bytes(pack))
            assert reader.header.sequence == sequence
            for record, data in records:
                self.content[record.offset : record.offset + record.length] = data or bytes(record.length)
                self.codecs.add(record.codec)
            self.wire += len(pack)
            self.largest = max(self.largest, len(pack))
            return Receipt(len(records), 0, len(pack), 0.0)

    def close(self) -> None:
        return None


def image(path: Path, pieces: dict[int, bytes], size: int = SIZE) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces.items():
            file.seek(offset)
            file.write(data)
    return path


def copy(path: Path, sink: MemorySink, compression: Compression = Compression.NEVER) -> list[Ack]:
    source = ImageSource(path).open()
    acks: list[Ack] = []
    extents = [(e.start, e.start + e.length, e.zero) for e in source.extents()]
    work = ranges(extents, source.size, Intervals())
    disk = CopyDisk("sda", "d-1", source.size, source, work, lambda: sink, 2 * MIB)
    try:
        copy_disks(CopySettings("m", 1, 2, compression), [disk], acks.append)
    finally:
        source.close()
    return acks


@pytest.mark.parametrize("mode", [Compression.NEVER, Compression(1), Compression(9)])
def test_a_copy_overwrites_everything_and_its_digests_make_the_root(tmp_path: Path, mode: Compression) -> None:
    # Alternating blocks of data and zeroes, so that runs move within their pack.
    pieces = {at * BLOCK: pattern(BLOCK) for at in range(0, 32, 2)}
    path = image(tmp_path / "a", {**pieces, 3 * MIB + 4096: TEXT * 8, SIZE - 3: b"end"})
    sink = MemorySink(SIZE)
    acks = copy(path, sink, mode)
    assert bytes(sink.content) == path.read_bytes()
    assert sink.codecs == {Codec.RAW, Codec.ZERO} | ({Codec.ZSTD} if mode.level else set())
    assert Intervals(piece for ack in acks for piece in ack.ranges).total == SIZE
    work = WorkTable(tmp_path / "work", SIZE)
    for ack in acks:
        for offset, table in ack.tables:
            work.write(offset, table)
    (table,) = work.tables()
    work.close()
    assert table == digests(memoryview(path.read_bytes()))
    assert disk_root(SIZE, segment_digest(table)) == reader.disk_root(path, SIZE)


def test_the_first_error_of_a_worker_is_raised_and_nothing_hangs(tmp_path: Path) -> None:
    path = image(tmp_path / "a", {0: pattern(6 * MIB)})
    with pytest.raises(SinkUnreachable):
        copy(path, MemorySink(SIZE, fail_after=1))


def test_after_an_error_the_rest_of_the_work_is_not_walked(tmp_path: Path) -> None:
    walked = 0

    def work() -> Iterator[Range]:
        nonlocal walked
        for at in range(0, 10_000 * MIB, MIB):
            walked += 1
            yield Range(at, at + MIB, False)

    source = ImageSource(image(tmp_path / "a", {0: pattern(6 * MIB)})).open()
    sink = MemorySink(SIZE, fail_after=0)
    with pytest.raises(SinkUnreachable):
        copy_disks(
            CopySettings("m", 1, 1),
            [CopyDisk("sda", "d-1", SIZE, source, work(), lambda: sink, 2 * MIB)],
            lambda _ack: None,
        )
    source.close()
    assert walked < 100


def test_a_segment_of_zeroes_over_scattered_data_takes_as_many_packs_as_it_needs(tmp_path: Path) -> None:
    """A base with data in every third block; the guest discarded all of it."""
    size = 12 * SEGMENT
    table = ((digest(b"data") + bytes(2 * DIGEST)) * (SEGMENT_BLOCKS // 3 + 1))[: SEGMENT_BLOCKS * DIGEST]
    work = WorkTable(tmp_path / "work", size)
    for start in range(0, size, SEGMENT):
        work.write(start, table)
    base = MapStore(tmp_path).freeze("sda", 1, work)
    work.close()
    zeroed: list[tuple[int, int]] = []

    class ZeroSink:
        takes_copies = False

        def put(self, sequence: int, pack: memoryview) -> Receipt:
            found = [(record.offset, record.offset + record.length) for record, _ in read(bytes(pack))[1]]
            zeroed.extend(found)
            return Receipt(len(found), 0, len(pack), 0.0)

        def close(self) -> None:
            return None

    acks: list[Ack] = []
    pieces = ranges([(0, size, True)], size, Intervals())
    disk = CopyDisk("sda", "d-1", size, ImageSource(image(tmp_path / "a", {})).open(), pieces, ZeroSink, 4 * MIB, base)
    copy_disks(CopySettings("m", 2, 1), [disk], acks.append)
    wanted = [
        (at + block * BLOCK, at + (block + 1) * BLOCK)
        for at in range(0, size, SEGMENT)
        for block in range(0, SEGMENT_BLOCKS, 3)
    ]
    assert sorted(zeroed) == wanted and len(acks) == 2
    assert list(Intervals(piece for ack in acks for piece in ack.ranges)) == [(0, size)]
    assert sum(ack.covered for ack in acks) == size
    assert sum(ack.changed_bytes for ack in acks) == len(wanted) * BLOCK


def test_each_disk_keeps_to_its_own_pack_size(tmp_path: Path) -> None:
    limits = {"sda": 4 * MIB, "sdb": 2 * MIB}
    sinks = {name: MemorySink(SIZE) for name in limits}
    sources = {name: ImageSource(image(tmp_path / name, {0: pattern(6 * MIB)})).open() for name in limits}
    disks = [
        CopyDisk(name, f"d-{name}", SIZE, sources[name], [Range(0, SIZE, False)], lambda name=name: sinks[name], limit)  # type: ignore[misc]
        for name, limit in limits.items()
    ]
    copy_disks(CopySettings("m", 1, 1, Compression.NEVER), disks, lambda _ack: None)
    for name, source in sources.items():
        source.close()
        assert limits[name] // 2 <= sinks[name].largest <= limits[name]
        assert bytes(sinks[name].content) == (tmp_path / name).read_bytes()


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12), st.integers(0, 70), st.integers(1, 30))
def test_intervals_are_a_set_of_bytes(pieces: list[tuple[int, int]], start: int, length: int) -> None:
    intervals = Intervals((at, at + count) for at, count in pieces)
    members = {byte for at, count in pieces for byte in range(at, at + count)}
    assert intervals.total == len(members)
    assert all(a[1] < b[0] for a, b in zip(list(intervals), list(intervals)[1:], strict=False))
    missing = [byte for a, b in intervals.missing(start, start + length) for byte in range(a, b)]
    assert missing == [byte for byte in range(start, start + length) if byte not in members]


@given(st.lists(st.tuples(st.integers(1, 5 * BLOCK // 512), st.booleans()), min_size=1, max_size=12))
@example([(1, True), (2 * BLOCK // 512, True)])
def test_ranges_cover_the_disk_once_in_whole_blocks(pieces: list[tuple[int, bool]]) -> None:
    extents, at = [], 0
    for length, zero in pieces:
        extents.append((at, at + length * 512, zero))
        at += length * 512
    found = list(ranges(extents, at, Intervals()))
    assert [item.start for item in found] == [0, *(item.end for item in found)][: len(found)]
    assert found[-1].end == at and all(item.start % BLOCK == 0 for item in found)
    for item in found:
        if item.zero:
            assert all(zero or end <= item.start or start >= item.end for start, end, zero in extents)
    # A block is data exactly when some data extent touches it.
    data = {block for start, end, zero in extents if not zero for block in range(start // BLOCK, -(-end // BLOCK))}
    assert data == {
        block for item in found if not item.zero for block in range(item.start // BLOCK, -(-item.end // BLOCK))
    }


def test_changed_runs() -> None:
    a, b = b"a" * 32, b"b" * 32
    assert list(changed_runs(a + b + ZERO_DIGEST + a, a + a + a + a)) == [(1, 2, False), (2, 3, True)]
    assert list(changed_runs(a + a, None)) == [(0, 2, False)]
    assert list(changed_runs(a, a)) == []


def test_digests_tell_zeroes_from_the_rest() -> None:
    for length in (512, BLOCK - 512, BLOCK):
        assert digest(memoryview(bytes(length))) == ZERO_DIGEST
        for place in (0, length // 2, length - 1):
            data = bytearray(length)
            data[place] = 1
            assert digest(memoryview(data)) != ZERO_DIGEST
    assert digest(memoryview(b"x" * 512)) != digest(memoryview(b"x" * 1024))


def read_back(path: Path, size: int) -> bytes:
    with ReadBack(path, size) as found:
        root = disk_root(size, b"".join(segment_digest(table) for table in found.tables()))
        assert found.done == size
    return root


@pytest.mark.parametrize("size", [512, BLOCK + 512, 17 * MIB + 1536])
def test_reading_back_equals_digesting_the_bytes(tmp_path: Path, size: int) -> None:
    path = image(tmp_path / "a", {0: pattern(min(size, 3 * MIB)), size - 100: pattern(100)}, size)
    table = digests(memoryview(path.read_bytes()))
    assert read_back(path, size) == disk_root(size, segment_digest(table))
    # A volume larger than its disk: only the disk counts.
    with path.open("ab") as file:
        file.write(b"more than the disk")
    assert read_back(path, size) == disk_root(size, segment_digest(table))
    with pytest.raises(SourceError):
        read_back(path, size + MIB)


def test_reading_back_goes_past_the_page_cache(tmp_path: Path) -> None:
    path = image(tmp_path / "a", {0: pattern(MIB)})
    with Uncached(path) as source:
        assert source.direct
    if Path("/dev/shm").is_dir():
        shared = Path("/dev/shm") / f"wavelift-test-{os.getpid()}"
        try:
            shared.write_bytes(path.read_bytes())
            assert read_back(shared, SIZE) == read_back(path, SIZE)
        finally:
            shared.unlink()


def test_the_raw_source_tells_data_from_holes(tmp_path: Path) -> None:
    path = image(tmp_path / "a", {MIB: pattern(MIB)})
    opened = ImageSource(path).open()
    before = opened.token
    extents = list(opened.extents())
    assert [(e.start, e.start + e.length, e.zero) for e in extents] == [
        (0, MIB, True),
        (MIB, 2 * MIB, False),
        (2 * MIB, SIZE, True),
    ]
    assert all(e.dirty for e in extents)
    buffer = bytearray(MIB)
    opened.readinto(MIB, memoryview(buffer))
    assert buffer == pattern(MIB)
    with pytest.raises(SourceError):
        opened.readinto(SIZE - 512, memoryview(buffer))
    os.utime(path, ns=(1, 1))
    assert opened.token != before
    opened.close()


@pytest.mark.parametrize(("content", "words"), [(b"x" * 100, "512"), (b"", "512")])
def test_what_is_no_raw_disk_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "disk"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=words):
        ImageSource(path).open()
    with pytest.raises(SourceError, match="cannot be opened"):
        ImageSource(tmp_path / "none").open()


def test_only_regular_files_are_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe", tmp_path):
        with pytest.raises(SourceError, match="no regular file") as caught:
            ImageSource(path).open()
        assert caught.value.code == "unsupported_source" and caught.value.remedy


def test_segments_are_a_gibibyte() -> None:
    assert SEGMENT == 1 << 30 and SEGMENT // BLOCK * 32 == 512 * 1024
