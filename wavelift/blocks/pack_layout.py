"""What the bytes of a pack mean, and the limits of this version. See docs/format.md."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from wavelift.blocks.digest import BLOCK, DIGEST, MAX_DISK, SECTOR
from wavelift.blocks.errors import PackError, PackTooLarge

MAGIC = b"WLPACK\r\n"
# Version 2 is version 1 with copy records: a pack without one is written as version 1, for every reader. A seal is
# always of version 1.
BASIC = 1
VERSION = 2
VERSIONS = (BASIC, VERSION)
PLAIN = 0
SEALED = 1

MAX_RECORD = 1 << 20
MAX_HEADER = 64 * 1024
MAX_NAME = 1024
MAX_DISKS = 64
MAX_RECORDS = 1 << 16
MAX_PACK = 256 << 20

PREFIX = struct.Struct("<8sHHII")
RECORD = struct.Struct("<4sBBHQQII")
END = struct.Struct("<4sIQQII")
DATA_MARK = b"RECD"
END_MARK = b"DONE"
RECORD_HEADER = RECORD.size
END_SIZE = END.size
assert RECORD_HEADER == END_SIZE  # so that either can be read before it is known which one comes
# Of a copy record, in place of a payload: index of the disk, 0, offset there.
ORIGIN = struct.Struct("<HHIQ")
# The longest thing that can stand in front of a payload.
MAX_RECORD_FRONT = RECORD_HEADER + MAX_RECORD // BLOCK * DIGEST + ORIGIN.size

# The envelope of a sealed pack: key id, id of the key-encryption key, wrapped key, nonce; then frames.
SEAL = struct.Struct("<16s16s40s32s")
SEALED_HEAD = PREFIX.size + SEAL.size
FRAME = 64 * 1024
FRAME_LENGTH = struct.Struct("<I")
LAST_FRAME = 1 << 31
TAG = 16

ReadInto = Callable[[memoryview], int]


class Codec(IntEnum):
    RAW = 0
    ZERO = 1
    ZSTD = 2
    COPY = 3


@dataclass(frozen=True)
class PackDisk:
    """A disk a pack speaks of: its id at the source, the volume it goes to, its size in bytes."""

    disk: str
    volume: str
    size: int


@dataclass(frozen=True)
class PackHeader:
    migration: str
    generation: int
    sequence: int
    disks: tuple[PackDisk, ...]


@dataclass(frozen=True)
class Record:
    """A run of blocks. `offset`, `length` in bytes of the disk; `payload` bytes follow in the pack.

    `origin` of a copy record: index of a disk, and the offset there where its volume held the same blocks.
    """

    disk: int
    offset: int
    length: int
    codec: Codec
    digests: bytes
    payload: int
    origin: tuple[int, int] | None = None


@dataclass(frozen=True)
class PackTotals:
    """What a pack held: records, bytes of disk it covers, and those of them that carried data."""

    records: int
    bytes: int
    data_bytes: int


def encode_header(header: PackHeader) -> bytes:
    """Raises `PackTooLarge`, `PackError` for what no reader would take."""
    body = json.dumps(
        {
            "migration": header.migration,
            "generation": header.generation,
            "sequence": header.sequence,
            "disks": [{"disk": disk.disk, "volume": disk.volume, "size": disk.size} for disk in header.disks],
        },
        separators=(",", ":"),
    ).encode()
    if len(body) > MAX_HEADER or len(header.disks) > MAX_DISKS:
        raise PackTooLarge("header", f"{MAX_HEADER} bytes and {MAX_DISKS} disks")
    if not possible(header):
        raise PackError(
            f"No pack can carry the header {body[:200].decode()}.",
            f"Name things in 1 to {MAX_NAME} bytes; give sizes in whole sectors of {SECTOR} bytes.",
        )
    return PREFIX.pack(MAGIC, BASIC, PLAIN, len(body), zlib.crc32(body)) + body


def set_version(front: memoryview, version: int) -> None:
    """Of a pack whose encoded header `front` begins with."""
    struct.pack_into("<H", front, len(MAGIC), version)


def possible(header: PackHeader) -> bool:
    """Whether all values have the types and lie within the limits of this version."""
    numbers = [header.generation, header.sequence, *(disk.size for disk in header.disks)]
    names = [header.migration, *(name for disk in header.disks for name in (disk.disk, disk.volume))]
    return (
        1 <= len(header.disks) <= MAX_DISKS
        and all(type(number) is int and 0 <= number <= MAX_DISK for number in numbers)
        and all(type(name) is str and _is_name(name) for name in names)
        and not any(disk.size % SECTOR for disk in header.disks)
        and len({disk.disk for disk in header.disks}) == len(header.disks)
    )


def _is_name(name: str) -> bool:
    try:
        return 0 < len(name.encode()) <= MAX_NAME
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can say it, UTF-8 cannot
        return False


def encode_record(record: Record) -> bytes:
    """The record's header and digests, and the origin of a copy record; any other payload follows."""
    bare = RECORD.pack(DATA_MARK, record.codec, 0, record.disk, record.offset, record.length, record.payload, 0)[:-4]
    rest = record.digests
    if record.origin is not None:
        rest += ORIGIN.pack(record.origin[0], 0, 0, record.origin[1])
    return bare + struct.pack("<I", zlib.crc32(rest, zlib.crc32(bare))) + rest


def encode_end(totals: PackTotals) -> bytes:
    bare = END.pack(END_MARK, totals.records, totals.bytes, totals.data_bytes, 0, 0)[:-4]
    return bare + struct.pack("<I", zlib.crc32(bare))


def frames_of(plain: int) -> int:
    """Frames of a seal around so many bytes."""
    return max(1, -(-plain // FRAME))


def sealed_size(plain: int) -> int:
    """Bytes that a pack of `plain` bytes takes in its envelope."""
    return SEALED_HEAD + plain + frames_of(plain) * (FRAME_LENGTH.size + TAG)
