"""Decoders against bytes made to break them: typed errors only, little memory, never other content.

WAVELIFT_FUZZ=20000 pytest tests/blocks/test_fuzz.py    tries that many of each kind instead of a few
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wavelift.blocks.blockmap import DiskMap, FolderTables, decode_index, segments_of
from wavelift.blocks.crypto import KeyEncryptionKey, KeyRing, MigrationKey
from wavelift.blocks.digest import BLOCK, digests
from wavelift.blocks.errors import MapError, PackError
from wavelift.blocks.pack import Codec, PackTotals, Record, encode_end, encode_header, encode_record
from wavelift.blocks.pack_layout import END_SIZE, PREFIX, RECORD_HEADER, SEALED_HEAD, sealed_size

from . import reader as stranger
from .conftest import GOLDEN, GOLDEN_KEY, GOLDEN_WRAPPED, HEADER, pattern, read

EXAMPLES = int(os.environ.get("WAVELIFT_FUZZ", "150"))
# Scratch, decompressed record, frames, and what collecting the records for the comparison takes.
MEMORY = 6 << 20

fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])

PLAIN = [(GOLDEN / f"{name}.pack").read_bytes() for name in ("mixed", "zstd", "zero", "empty", "raw", "copy")]
SEALED = [(GOLDEN / f"{name}.pack").read_bytes() for name in ("sealed", "sealed-empty")]
MAPS = [(GOLDEN / "maps" / f"{number}.map").read_bytes() for number in (1, 2, 3)]
WRAPPING = KeyEncryptionKey(GOLDEN_KEY)
RING = KeyRing([WRAPPING])

EXTREMES = st.sampled_from(
    [
        0,
        1,
        127,
        128,
        255,
        32767,
        65535,
        1 << 16,
        1 << 20,
        (1 << 20) + 1,
        1 << 30,
        (1 << 31) - 1,
        1 << 31,
        (1 << 32) - 1,
        1 << 50,
        (1 << 63) - 1,
        (1 << 64) - 1,
    ]
)


def fronts(data: bytes) -> list[int]:
    """Where the interesting bytes are: all but payloads."""
    places = [*range(min(len(data), 400)), *range(max(0, len(data) - 200), len(data))]
    for mark in (b"RECD", b"DONE", b"\x28\xb5\x2f\xfd"):
        at = data.find(mark)
        while at >= 0:
            places += range(at, min(len(data), at + 64))
            at = data.find(mark, at + 1)
    return places


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        place = draw(st.one_of(st.sampled_from(fronts(bytes(data))), st.integers(0, len(data) - 1)))
        match draw(st.sampled_from(["bit", "field", "cut", "drop", "repeat", "insert", "splice"])):
            case "bit":
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "field":
                width = draw(st.sampled_from([1, 2, 4, 8]))
                value = draw(EXTREMES) % (1 << 8 * width)
                data[place : place + width] = value.to_bytes(width, "little")
            case "cut":
                del data[place:]
            case "drop":
                del data[place : place + draw(st.integers(1, 100))]
            case "repeat":
                piece = data[place : place + draw(st.integers(1, 200))]
                data[place:place] = piece
            case "insert":
                data[place:place] = draw(st.binary(min_size=1, max_size=20))
            case _:
                other = draw(st.sampled_from(seeds))
                data = data[:place] + other[draw(st.sampled_from(fronts(other))) :]
    return bytes(data)


def repaired(data: bytes) -> bytes:
    """The same with right checksums wherever there is something like a header, a record or an end."""
    fixed = bytearray(data)
    if len(fixed) >= PREFIX.size:
        length = int.from_bytes(fixed[12:16], "little")
        fixed[16:20] = struct.pack("<I", zlib.crc32(fixed[20 : 20 + length]))
    at = 0
    while (at := fixed.find(b"RECD", at)) >= 0 and at + RECORD_HEADER <= len(fixed):
        codec, length = fixed[at + 4], int.from_bytes(fixed[at + 16 : at + 24], "little")
        table = -(-min(length, 1 << 20) // BLOCK) * 32 if codec in (0, 2, 3) else 0
        table += 16 if codec == 3 else 0
        crc = zlib.crc32(fixed[at + 32 : at + 32 + table], zlib.crc32(fixed[at : at + 28]))
        fixed[at + 28 : at + 32] = struct.pack("<I", crc)
        at += 4
    end = len(fixed) - END_SIZE
    if end >= 0 and fixed[end : end + 4] == b"DONE":
        fixed[end + 28 : end + 32] = struct.pack("<I", zlib.crc32(fixed[end : end + 28]))
    return bytes(fixed)


Found = tuple[object, list[tuple[Record, bytes]]]


def attempt(data: bytes) -> Found | None:
    """What is read, None where it is refused; anything else is a failure of the test."""
    tracemalloc.start()
    try:
        reader, records = read(data, RING, copies=True)
        # Of a copy record there is only room.
        return reader.header, [(record, b"" if record.origin else content) for record, content in records]
    except PackError as error:
        assert error.code in {"bad_pack", "corrupt", "unknown_pack", "pack_too_large", "pack_key_missing"}
        assert error.message and error.remedy
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MEMORY + len(data), f"{peak} bytes"


RIGHT = [attempt(data) for data in PLAIN]


@given(mutated(PLAIN))
@fuzz
def test_a_damaged_pack_is_refused_or_read_as_it_was_written(data: bytes) -> None:
    found = attempt(data)
    assert found is None or found in RIGHT


@given(mutated(PLAIN))
@fuzz
def test_a_forged_pack_is_read_as_the_document_says_or_refused(data: bytes) -> None:
    forged = repaired(data)
    found = attempt(forged)
    if found is None:
        return
    theirs = stranger.read_pack(forged)
    assert [(record.offset, record.length, content) for record, content in found[1]] == [
        (offset, length, content) for _, offset, length, _, content in theirs.records
    ]
    ids = [str(disk["disk"]) for disk in theirs.header["disks"]]  # type: ignore[attr-defined]
    assert [
        (ids[record.origin[0]], record.origin[1], record.digests) for record, _ in found[1] if record.origin
    ] == theirs.copies
    for record, content in found[1]:
        assert record.origin or digests(memoryview(content)) == record.digests


@given(mutated(SEALED), st.booleans())
@fuzz
def test_a_sealed_pack_is_refused_or_untouched(data: bytes, repair: bool) -> None:
    bad = repaired(data) if repair else data
    assert attempt(bad) is None or bad in SEALED


@given(mutated(PLAIN))
@fuzz
def test_a_seal_around_a_forged_pack_changes_nothing_of_how_it_is_read(data: bytes) -> None:
    forged = repaired(data)
    if not forged:
        return
    buffer = memoryview(bytearray(sealed_size(len(forged))))
    buffer[SEALED_HEAD : SEALED_HEAD + len(forged)] = forged
    sealed = bytes(MigrationKey(WRAPPING, GOLDEN_WRAPPED).seal(buffer, len(forged)))
    if forged[:12] == b"WLPACK\r\n\x01\x00\x01\x00":
        assert attempt(sealed) is None
    else:
        assert attempt(sealed) == attempt(forged)


@given(mutated(MAPS), st.booleans())
@fuzz
def test_a_block_map_is_refused_or_consistent(data: bytes, repair: bool) -> None:
    if repair and len(data) > 4:
        data = data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))
    tracemalloc.start()
    try:
        found = decode_index(data, FolderTables(Path()))
    except MapError as error:
        assert error.code in {"bad_block_map", "unknown_block_map", "block_map_too_large"}
    else:
        assert repair or data in MAPS
        assert len(found.segments) == segments_of(found.size) * 32 and len(found.root) == 32
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20


@given(mutated([digests(memoryview(pattern(3 * BLOCK)))]))
@fuzz
def test_a_table_is_refused_or_as_it_was_written(data: bytes) -> None:
    table = digests(memoryview(pattern(3 * BLOCK)))
    name = stranger.blake3(table).digest()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name.hex()).write_bytes(data)
        try:
            assert DiskMap("sda", 3 * BLOCK, name, FolderTables(Path(folder))).table(0) == table == data
        except MapError:
            assert data != table


def zstd_frame(window_log: int, claims: int, rest: bytes) -> bytes:
    return b"\x28\xb5\x2f\xfd\x80" + bytes([window_log - 10 << 3]) + struct.pack("<I", claims) + rest


def hostile() -> dict[str, bytes]:
    """Small packs that ask for much memory."""
    found = {
        f"header of {length}": struct.pack("<8sHHII", b"WLPACK\r\n", 1, flags, length, 0)
        for flags, length in ((0, 2**32 - 1), (0, 2**31), (1, 2**32 - 1))
    }
    front, end = encode_header(HEADER), encode_end(PackTotals(1, BLOCK, BLOCK))
    table = digests(memoryview(pattern(BLOCK)))
    block = b"\x05\x00\x08" + b"x" * 3
    for log in (20, 21, 27, 30, 31):
        for claims in (BLOCK, 1 << 30, 2**32 - 1):
            for cut in (block, b"", b"\xff\xff\xff" + bytes(40)):
                frame = zstd_frame(log, claims, cut)
                record = Record(0, 0, BLOCK, Codec.ZSTD, table, len(frame))
                found[f"window 2^{log}, claims {claims}, {len(cut)} more"] = front + encode_record(record) + frame + end
    for length in (2**20 + BLOCK, 2**31, 2**40, 2**63):
        for codec in (Codec.RAW, Codec.ZSTD, Codec.ZERO):
            record = Record(0, 0, length, codec, bytes(32 * 16), 2**32 - 1)
            found[f"{codec.name} of {length}"] = front + encode_record(record) + bytes(100) + end
    for length, place in ((2**20 + BLOCK, 0), (2**40, 0), (BLOCK, 2**63), (BLOCK, 2**64 - BLOCK)):
        record = Record(0, 0, length, Codec.COPY, bytes(32 * 16), 16, (0, place))
        pack = front[:8] + b"\x02" + front[9:] + encode_record(record) + end
        found[f"copy of {length} from {place}"] = pack
    for length in (2**31 - 1, 2**32 - 1, 65537):
        found[f"frame of {length}"] = SEALED[0][:SEALED_HEAD] + struct.pack("<I", length) + SEALED[0][SEALED_HEAD + 4 :]
    return found


CHILD = """
import pathlib, resource, sys
from wavelift.blocks.crypto import KeyEncryptionKey, KeyRing
from wavelift.blocks.errors import PackError
from wavelift.blocks.pack import PackReader
ring, scratch = KeyRing([KeyEncryptionKey(bytes(range(32)))]), bytearray(1 << 20)

def read(path):
    with path.open("rb") as file:
        for _ in PackReader(file.readinto, scratch, ring).records():
            pass

good, *bad = [pathlib.Path(name) for name in sys.argv[1:]]
read(good)
used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (12 << 20),) * 2)
read(good)
for path in bad:
    try:
        read(path)
    except PackError as error:
        if error.__cause__ is not None or isinstance(error.__context__, MemoryError):
            raise
    else:
        sys.exit(f"{path} was read")
print(len(bad))
"""


def test_hostile_packs_need_no_memory(tmp_path: Path) -> None:
    """In a process that may take 12 MiB more than reading a good pack needed."""
    packs = hostile()
    paths = []
    for number, data in enumerate(packs.values()):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(data)
    run = subprocess.run(
        [sys.executable, "-c", CHILD, str(GOLDEN / "sealed.pack"), *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, f"{len(packs)}\n"), run.stderr


@pytest.mark.parametrize(
    "make", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: data[:60] + data[61:]]
)
def test_the_fuzzer_would_notice(make: Callable[[bytes], bytes]) -> None:
    """What it takes for refused is refused, and what it takes for right is read."""
    assert all(attempt(make(data)) is None for data in PLAIN + SEALED)
    assert all(attempt(data) is not None for data in PLAIN + SEALED)
