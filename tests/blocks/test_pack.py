"""The pack format: golden bytes, round trips, and damage that is always found."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from dataclasses import replace

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from wavelift.blocks.digest import BLOCK, digests
from wavelift.blocks.errors import CorruptPack, PackError, PackTooLarge, UnknownPack
from wavelift.blocks.pack import (
    END_SIZE,
    MAX_PACK,
    MAX_RECORD,
    Codec,
    PackDisk,
    PackHeader,
    PackReader,
    PackTotals,
    PackWriter,
    Record,
    encode_end,
    encode_header,
    encode_record,
)
from wavelift.blocks.pack_layout import MAX_RECORDS, PREFIX

from .conftest import GOLDEN, HEADER, TEXT, pattern, read, write


def compress(data: memoryview) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(data)


def test_the_golden_pack_is_written_and_read_the_same_for_ever() -> None:
    parts: list[tuple[int, bytes | int]] = [(0, pattern(BLOCK)), (BLOCK, 2 * BLOCK), (4 * BLOCK, pattern(512))]
    golden = (GOLDEN / "raw.pack").read_bytes()
    assert write(HEADER, parts) == golden
    reader, records = read(golden)
    assert reader.header == HEADER and reader.totals == PackTotals(3, 3 * BLOCK + 512, BLOCK + 512)
    assert [(r.offset, r.length, r.codec) for r, _ in records] == [
        (0, BLOCK, Codec.RAW),
        (BLOCK, 2 * BLOCK, Codec.ZERO),
        (4 * BLOCK, 512, Codec.RAW),
    ]
    assert [data for _, data in records] == [pattern(BLOCK), b"", pattern(512)]


def test_the_golden_compressed_pack_is_read() -> None:
    reader, records = read((GOLDEN / "zstd.pack").read_bytes())
    assert reader.header == HEADER and records[0][0].codec is Codec.ZSTD and records[0][1] == TEXT


def test_every_flipped_byte_is_found_or_changes_nothing() -> None:
    for name in ("raw.pack", "zstd.pack"):
        golden = (GOLDEN / name).read_bytes()
        _, right = read(golden)
        found = 0
        # Every byte of what is not payload, and a sample of what is.
        places = [*range(300), *range(300, len(golden) - 1200, 997), *range(len(golden) - 1200, len(golden))]
        for place in sorted({at for at in places if 0 <= at < len(golden)}):
            for flip in (0x01, 0x80, 0xFF):
                bad = bytearray(golden)
                bad[place] ^= flip
                try:
                    _, records = read(bytes(bad))
                except PackError:
                    found += 1
                else:
                    # Bits of a zstd frame that mean nothing: the digests prove the content.
                    assert name == "zstd.pack" and [d for _, d in records] == [d for _, d in right]
        assert found > 100


def test_every_cut_is_found() -> None:
    golden = (GOLDEN / "zstd.pack").read_bytes()
    for length in range(len(golden)):
        with pytest.raises(PackError):
            read(golden[:length])
    with pytest.raises(CorruptPack, match="follows"):
        read(golden + b"\0")


def test_damage_names_disk_and_offset() -> None:
    pack = bytearray(write(HEADER, [(BLOCK, pattern(3 * BLOCK))]))
    pack[-END_SIZE - 32 - BLOCK - 5] ^= 4
    with pytest.raises(CorruptPack) as caught:
        read(bytes(pack))
    assert (caught.value.disk, caught.value.offset, caught.value.code) == ("sda", 2 * BLOCK, "corrupt")
    assert "sda" in str(caught.value) and str(2 * BLOCK) in str(caught.value)


@given(st.lists(st.tuples(st.sampled_from(["raw", "zstd", "zero"]), st.integers(1, 3)), max_size=6), st.booleans())
@settings(max_examples=40, deadline=None)
def test_round_trip(runs: list[tuple[str, int]], odd_end: bool) -> None:
    blocks = sum(count for _, count in runs)
    size = max(1, blocks) * BLOCK - (BLOCK - 512 if odd_end else 0)
    header = PackHeader("m", 1, 2, (PackDisk("disk é", "d-1", size),))
    writer = PackWriter(bytearray(4 << 20), header)
    expected, offset = [], 0
    for kind, count in runs:
        length = min(count * BLOCK, size - offset)
        content = b"" if kind == "zero" else (pattern(length) if kind == "raw" else (b"ab" * length)[:length])
        if kind == "zero":
            writer.add_zero(0, offset, length)
        else:
            view = writer.slot(length)
            view[:] = content
            writer.add_data(0, offset, view, digests(view), compress(view) if kind == "zstd" else None)
        expected.append((offset, length, content))
        offset += length
    reader, records = read(bytes(writer.finish()))
    assert reader.header == header
    assert [(record.offset, record.length, data) for record, data in records] == expected


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_no_bytes_crash_the_reader(tail: bytes) -> None:
    for start in (b"", b"WLPACK\r\n", encode_header(HEADER), encode_header(HEADER) + b"RECD"):
        with pytest.raises(PackError):
            read(start + tail)


def header_of(body: bytes) -> bytes:
    return struct.pack("<8sHHII", b"WLPACK\r\n", 1, 0, len(body), zlib.crc32(body)) + body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 60_000,
        b"\xff\xfe",
        b'{"migration":"m","generation":1,"sequence":1,"disks":[]}',
        b'{"migration":"m","generation":1,"sequence":1,"disks":[{"disk":"a","volume":"v","size":513}]}',
        b'{"migration":"m","generation":-1,"sequence":1,"disks":[{"disk":"a","volume":"v","size":512}]}',
        b'{"migration":"m","generation":true,"sequence":1,"disks":[{"disk":"a","volume":"v","size":512}]}',
        b'{"migration":1,"generation":1,"sequence":1,"disks":[{"disk":"a","volume":"v","size":512}]}',
        b'{"migration":"m","generation":1e999,"sequence":1,"disks":[{"disk":"a","volume":"v","size":512}]}',
    ],
)
def test_headers_with_a_right_checksum_and_wrong_content(body: bytes) -> None:
    with pytest.raises(PackError):
        read(header_of(body) + encode_end(PackTotals(0, 0, 0)))


@pytest.mark.parametrize(
    "record",
    [
        Record(1, 0, BLOCK, Codec.ZERO, b"", 0),
        Record(0, 512, BLOCK, Codec.ZERO, b"", 0),
        Record(0, 0, 512, Codec.ZERO, b"", 0),
        Record(0, 0, 0, Codec.ZERO, b"", 0),
        Record(0, 0, BLOCK, Codec.ZERO, b"", 5),
        Record(0, 4 * BLOCK, BLOCK, Codec.ZERO, b"", 0),
        Record(0, 2**63, BLOCK, Codec.ZERO, b"", 0),
        Record(0, 0, BLOCK, Codec.RAW, bytes(32), 10),
        Record(0, 0, BLOCK, Codec.ZSTD, bytes(32), 0),
        Record(0, 0, BLOCK, Codec.ZSTD, bytes(32), 2**32 - 1),
        Record(0, 0, 2**40, Codec.RAW, bytes(32 * 16), 2**31),
    ],
)
def test_records_with_a_right_checksum_and_impossible_values(record: Record) -> None:
    with pytest.raises(PackError):
        read(encode_header(HEADER) + encode_record(record) + bytes(100) + encode_end(PackTotals(1, BLOCK, 0)))


@pytest.mark.parametrize(
    ("origin", "offset", "length", "payload", "code"),
    [
        ((1, 0), 0, BLOCK, 16, "corrupt"),
        ((0, 512), 0, BLOCK, 16, "corrupt"),
        ((0, 4 * BLOCK), 0, BLOCK, 16, "corrupt"),
        ((0, 2**63), 0, BLOCK, 16, "corrupt"),
        ((0, BLOCK), 512, BLOCK, 16, "corrupt"),
        ((0, BLOCK), 0, 512, 16, "corrupt"),
        ((0, BLOCK), 0, BLOCK, 15, "corrupt"),
        ((0, BLOCK), 0, 2 * MAX_RECORD, 16, "pack_too_large"),
        ((0, 2 * BLOCK), 0, 2 * BLOCK, 16, None),
    ],
)
def test_copies_from_and_to_impossible_places(
    origin: tuple[int, int], offset: int, length: int, payload: int, code: str | None
) -> None:
    table = bytes(range(32)) * (min(length, MAX_RECORD) // BLOCK or 1)
    record = Record(0, offset, length, Codec.COPY, table, payload, origin)
    front = encode_header(HEADER)
    pack = front[:8] + b"\x02" + front[9:] + encode_record(record) + encode_end(PackTotals(1, length, 0))
    if code is None:
        assert [found for found, _ in read(pack, copies=True)[1]] == [record]
        return
    with pytest.raises(PackError) as caught:
        read(pack, copies=True)
    assert caught.value.code == code


def test_what_is_unknown_is_refused() -> None:
    golden = (GOLDEN / "raw.pack").read_bytes()
    with pytest.raises(UnknownPack, match="version 3"):
        read(golden[:8] + b"\x03" + golden[9:])
    for flags in (2, 3, 0x8000):
        with pytest.raises(UnknownPack, match=f"flags {flags}"):
            read(golden[:10] + struct.pack("<H", flags) + golden[12:])
    for codec, reserved, message in ((9, 0, "codec 9"), (1, 4, "codec 1 with flags 4")):
        bare = struct.pack("<4sBBHQQI", b"RECD", codec, reserved, 0, 0, BLOCK, 0)
        with pytest.raises(UnknownPack, match=message) as caught:
            read(encode_header(HEADER) + bare + struct.pack("<I", zlib.crc32(bare)))
        assert (caught.value.what, caught.value.code) == ("codec", "unknown_pack")
    for key in (b'"later":1,', b'"disk":"a",'):
        with pytest.raises(UnknownPack, match="header key"):
            read(header_of(b"{" + key + b'"migration":"m","generation":1,"sequence":1,"disks":[]}'))


def test_a_pack_of_more_than_the_limit_is_refused_without_reading_on() -> None:
    zeroes = encode_record(Record(0, 0, BLOCK, Codec.ZERO, b"", 0))
    with pytest.raises(PackTooLarge, match="65536") as caught:
        read(encode_header(HEADER) + zeroes * (MAX_RECORDS + 1))
    assert caught.value.what == "number of records"

    data = pattern(MAX_RECORD)
    record = encode_record(Record(0, 0, MAX_RECORD, Codec.RAW, digests(memoryview(data)), MAX_RECORD)) + data
    given = 0
    front = encode_header(PackHeader("m", 1, 1, (PackDisk("sda", "d-1", 1 << 40),)))

    def endless(view: memoryview) -> int:
        nonlocal given
        where = given
        given += len(view)
        if where < len(front):
            view[:] = front[where : where + len(view)]
        else:
            at = (where - len(front)) % len(record)
            view[:] = record[at : at + len(view)]
        return len(view)

    reader = PackReader(endless)
    with pytest.raises(PackTooLarge, match=str(MAX_PACK)):
        for _ in reader.records():
            pass
    assert given <= MAX_PACK + MAX_RECORD

    with pytest.raises(PackTooLarge, match="header"):
        read(struct.pack("<8sHHII", b"WLPACK\r\n", 1, 0, 2**32 - 1, 0))
    with pytest.raises(PackTooLarge, match="record on disk sda at byte 0"):
        read(encode_header(HEADER) + encode_record(Record(0, 0, 2 * MAX_RECORD, Codec.RAW, bytes(512), 2 * MAX_RECORD)))


def test_a_writer_makes_nothing_that_no_reader_takes() -> None:
    with pytest.raises(PackTooLarge):
        PackWriter(bytearray(4096), replace(HEADER, disks=HEADER.disks * 65))
    for name in ("", "x" * 1025, "\ud800"):
        with pytest.raises(PackError, match="No pack can carry"):
            PackWriter(bytearray(4096), replace(HEADER, migration=name))
    writer = PackWriter(bytearray(8 << 20), HEADER)
    for _ in range(MAX_RECORDS):
        writer.add_zero(0, 0, BLOCK)
    assert not writer.room(BLOCK)
    with pytest.raises(PackTooLarge):
        writer.add_zero(0, 0, BLOCK)
    assert read(bytes(writer.finish()))[0].totals == PackTotals(MAX_RECORDS, MAX_RECORDS * BLOCK, 0)


def test_a_frame_that_claims_gigabytes_allocates_none() -> None:
    frame = zstandard.ZstdCompressor().compress(bytes(1 << 30))
    assert len(frame) < BLOCK
    record = Record(0, 0, BLOCK, Codec.ZSTD, digests(memoryview(pattern(BLOCK))), len(frame))
    pack = encode_header(HEADER) + encode_record(record) + frame + encode_end(PackTotals(1, BLOCK, BLOCK))
    tracemalloc.start()
    with pytest.raises(CorruptPack, match="another length"):
        read(pack)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_frame_that_needs_a_large_window_is_refused() -> None:
    data = b"x" * BLOCK
    for log, taken in ((20, True), (21, False)):
        # Content size in 4 bytes, window of 2^log, one block: 64 KiB of the same byte.
        frame = b"\x28\xb5\x2f\xfd\x80" + bytes([log - 10 << 3]) + struct.pack("<I", BLOCK)
        frame += (BLOCK << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"x"
        record = Record(0, 0, BLOCK, Codec.ZSTD, digests(memoryview(data)), len(frame))
        pack = encode_header(HEADER) + encode_record(record) + frame + encode_end(PackTotals(1, BLOCK, BLOCK))
        if taken:
            assert read(pack)[1][0][1] == data
        else:
            with pytest.raises(CorruptPack):
                read(pack)


def test_a_missing_record_is_found() -> None:
    whole = write(HEADER, [(0, pattern(BLOCK)), (BLOCK, 2 * BLOCK)])
    front = len(encode_header(HEADER))
    with pytest.raises(CorruptPack, match="missing"):
        read(whole[:front] + whole[front + 64 + BLOCK :])


def test_a_disk_that_is_there_twice_is_refused_on_both_sides() -> None:
    twice = (PackDisk("sda", "d-1", 4096), PackDisk("sda", "d-2", 4096))
    with pytest.raises(PackError, match="No pack can carry"):
        encode_header(replace(HEADER, disks=twice))
    whole = encode_header(replace(HEADER, disks=(twice[0], replace(twice[1], disk="sdb"))))
    body = whole[PREFIX.size :].replace(b'"sdb"', b'"sda"')
    with pytest.raises(CorruptPack, match="impossible"):
        read(PREFIX.pack(b"WLPACK\r\n", 1, 0, len(body), zlib.crc32(body)) + body)
