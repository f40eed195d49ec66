"""The pack format: records of blocks in transfer or at rest. See docs/format.md."""

from __future__ import annotations

import json
import mmap
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

import zstandard

from wavelift.blocks.digest import BLOCK, DIGEST, MAX_DISK, SECTOR, SEGMENT, blocks_of, digests
from wavelift.blocks.errors import CorruptPack, PackError

MAGIC = b"WLPACK\r\n"
VERSION = 1
MAX_RECORD = 1 << 20
MAX_HEADER = 64 * 1024
MAX_DISKS = 64
MAX_PACK = 256 << 20

_PREFIX = struct.Struct("<8sHHII")
_RECORD = struct.Struct("<4sBBHQQII")
_END = struct.Struct("<4sIQQII")
_DATA_MARK = b"RECD"
_END_MARK = b"DONE"
RECORD_HEADER = _RECORD.size
END_SIZE = _END.size
# The longest thing that can stand in front of a payload.
MAX_RECORD_FRONT = RECORD_HEADER + MAX_RECORD // BLOCK * DIGEST


class Codec(IntEnum):
    RAW = 0
    ZERO = 1
    ZSTD = 2


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
    """A run of blocks. `offset`, `length` in bytes of the disk; `payload` bytes follow in the pack."""

    disk: int
    offset: int
    length: int
    codec: Codec
    digests: bytes
    payload: int


@dataclass(frozen=True)
class PackTotals:
    """What a pack held: records, bytes of disk it covers, and those of them that carried data."""

    records: int
    bytes: int
    data_bytes: int


def encode_header(header: PackHeader) -> bytes:
    body = json.dumps(
        {
            "migration": header.migration,
            "generation": header.generation,
            "sequence": header.sequence,
            "disks": [{"disk": disk.disk, "volume": disk.volume, "size": disk.size} for disk in header.disks],
        },
        separators=(",", ":"),
    ).encode()
    if len(body) > MAX_HEADER or not 1 <= len(header.disks) <= MAX_DISKS:
        raise PackError("The pack's header is too large.", f"Keep it under {MAX_DISKS} disks and 64 KiB.")
    return _PREFIX.pack(MAGIC, VERSION, 0, len(body), zlib.crc32(body)) + body


def encode_record(record: Record) -> bytes:
    """The record's header and digests; the payload follows."""
    bare = _RECORD.pack(_DATA_MARK, record.codec, 0, record.disk, record.offset, record.length, record.payload, 0)[:-4]
    return bare + struct.pack("<I", zlib.crc32(record.digests, zlib.crc32(bare))) + record.digests


def encode_end(totals: PackTotals) -> bytes:
    bare = _END.pack(_END_MARK, totals.records, totals.bytes, totals.data_bytes, 0, 0)[:-4]
    return bare + struct.pack("<I", zlib.crc32(bare))


class PackWriter:
    """Fills a caller's buffer with one pack, so that data can be read straight to its place.

    Use: `slot()` gives room for up to `length` bytes of data, `add_data` says what of it to keep.
    """

    def __init__(self, buffer: bytearray | memoryview, header: PackHeader) -> None:
        self._view = memoryview(buffer)
        self._header = header
        front = encode_header(header)
        self._at = len(front)
        self._view[: self._at] = front
        self._records = self._bytes = self._data = 0

    @property
    def records(self) -> int:
        return self._records

    @property
    def data_bytes(self) -> int:
        """Bytes of disk sent as data so far (before compression)."""
        return self._data

    @property
    def size(self) -> int:
        """Bytes of the pack so far, without its end record."""
        return self._at

    def room(self, length: int) -> bool:
        """Whether `length` more bytes of data fit, even as sixteen records of one block each."""
        fronts = max(1, blocks_of(length)) * (RECORD_HEADER + DIGEST)
        return self._at + fronts + length + END_SIZE <= len(self._view)

    def slot(self, length: int) -> memoryview:
        """Where `length` bytes of data may be read to; valid until the next `add_*`."""
        start = self._at + RECORD_HEADER + blocks_of(length) * DIGEST
        return self._view[start : start + length]

    def add_zero(self, disk: int, offset: int, length: int) -> None:
        """Zeroes, up to 1 GiB a record; the caller keeps within one segment."""
        self._put(Record(disk, offset, length, Codec.ZERO, b"", 0), memoryview(b""))

    def add_data(
        self,
        disk: int,
        offset: int,
        data: memoryview,
        table: bytes,
        compress: Callable[[memoryview], bytes | None] | None = None,
    ) -> None:
        """Data with its digests. `compress` may return None where it does not pay."""
        packed = compress(data) if compress is not None else None
        if packed is not None and len(packed) < len(data):
            self._put(Record(disk, offset, len(data), Codec.ZSTD, table, len(packed)), memoryview(packed))
        else:
            self._put(Record(disk, offset, len(data), Codec.RAW, table, len(data)), data)
        self._data += len(data)

    def finish(self) -> memoryview:
        """The whole pack; the buffer belongs to it until it was sent."""
        end = encode_end(PackTotals(self._records, self._bytes, self._data))
        self._view[self._at : self._at + len(end)] = end
        return self._view[: self._at + len(end)]

    def _put(self, record: Record, payload: memoryview) -> None:
        front = encode_record(record)
        start = self._at + len(front)
        # The payload moves first: it may lie where the header goes, and slices of one buffer move safely.
        self._view[start : start + len(payload)] = payload
        self._view[self._at : start] = front
        self._at = start + len(payload)
        self._records += 1
        self._bytes += record.length


ReadInto = Callable[[memoryview], int]


class PackReader:
    """Reads a pack from a stream, record by record, in bounded memory.

    `readinto(view)` fills the view and returns how many bytes it got; fewer means the end of the stream.
    Raises `PackError` for what this version does not know, `CorruptPack` for damage; nothing else.
    """

    def __init__(self, readinto: ReadInto, scratch: bytearray | mmap.mmap | None = None) -> None:
        """`scratch`, 1 MiB, may be handed from pack to pack: fresh memory is slow. Data is always in it,
        so that an aligned one makes aligned writes."""
        self._readinto = readinto
        self._scratch = bytearray(MAX_RECORD) if scratch is None else scratch
        self._front = bytearray(MAX_RECORD_FRONT)
        self._zstd = zstandard.ZstdDecompressor()
        self.header = self._read_header()
        self.totals: PackTotals | None = None

    def records(self) -> Iterator[tuple[Record, memoryview]]:
        """(record, checked data) pairs; the data is valid until the next one. Zero records have none."""
        records = covered = data_bytes = 0
        while True:
            mark = self._exactly(memoryview(self._front)[:4], "a record")
            if bytes(mark) == _END_MARK:
                self._check_end(PackTotals(records, covered, data_bytes))
                return
            if bytes(mark) != _DATA_MARK:
                raise CorruptPack("a record does not begin as one")
            record = self._read_record()
            yield record, self._payload(record)
            records += 1
            covered += record.length
            data_bytes += 0 if record.codec is Codec.ZERO else record.length

    def _exactly(self, view: memoryview, what: str) -> memoryview:
        if self._readinto(view) != len(view):
            raise CorruptPack(f"it ends within {what}")
        return view

    def _read_header(self) -> PackHeader:
        prefix = self._exactly(memoryview(bytearray(_PREFIX.size)), "its header")
        magic, version, flags, length, crc = _PREFIX.unpack(prefix)
        if magic != MAGIC:
            raise PackError("This is not a pack.", "Check what was sent here.")
        if version != VERSION or flags != 0:
            raise PackError(
                f"This pack has version {version}, flags {flags}; this reads version {VERSION} without flags.",
                "Use the same version of Wavelift on both sides.",
            )
        if length > MAX_HEADER:
            raise CorruptPack("its header claims to be larger than 64 KiB")
        body = bytes(self._exactly(memoryview(bytearray(length)), "its header"))
        if zlib.crc32(body) != crc:
            raise CorruptPack("its header does not match its checksum")
        return _parse_header(body)

    def _read_record(self) -> Record:
        front = memoryview(self._front)
        self._exactly(front[4:RECORD_HEADER], "a record's header")
        _, codec, reserved, disk, offset, length, payload, crc = _RECORD.unpack(front[:RECORD_HEADER])
        data = codec in (Codec.RAW, Codec.ZSTD)
        table_size = blocks_of(min(length, MAX_RECORD)) * DIGEST if data else 0
        table = bytes(self._exactly(front[RECORD_HEADER : RECORD_HEADER + table_size], "a record's digests"))
        if zlib.crc32(table, zlib.crc32(front[: RECORD_HEADER - 4])) != crc:
            raise CorruptPack("a record's header does not match its checksum")
        if reserved != 0 or codec not in list(Codec):
            raise PackError(f"A record has the unknown codec {codec}.", "Use the same version on both sides.")
        return self._sane(Record(disk, offset, length, Codec(codec), table, payload))

    def _sane(self, record: Record) -> Record:
        if record.disk >= len(self.header.disks):
            raise CorruptPack(f"a record names disk {record.disk} of {len(self.header.disks)}")
        disk = self.header.disks[record.disk]
        end = record.offset + record.length
        limit = SEGMENT if record.codec is Codec.ZERO else MAX_RECORD
        whole = record.length % BLOCK == 0 or end == disk.size
        if not 0 < record.length <= limit or record.offset % BLOCK or end > disk.size or not whole:
            raise CorruptPack(f"a record covers {record.length} bytes there", disk.disk, record.offset)
        payload_fits = {
            Codec.ZERO: record.payload == 0,
            Codec.RAW: record.payload == record.length,
            Codec.ZSTD: 0 < record.payload < record.length,
        }[record.codec]
        if not payload_fits:
            raise CorruptPack("a record's payload has a wrong length", disk.disk, record.offset)
        return record

    def _payload(self, record: Record) -> memoryview:
        name = self.header.disks[record.disk].disk
        view = memoryview(self._scratch)[: record.payload]
        if self._readinto(view) != record.payload:
            raise CorruptPack("it ends within a record's data", name, record.offset)
        if record.codec is Codec.ZERO:
            return view
        if record.codec is Codec.ZSTD:
            view = self._decompress(view, record, name)
        found = digests(view)
        if found != record.digests:
            bad = next(
                i for i in range(0, len(found), DIGEST) if found[i : i + DIGEST] != record.digests[i : i + DIGEST]
            )
            raise CorruptPack("a block does not match its digest", name, record.offset + bad // DIGEST * BLOCK)
        return view

    def _decompress(self, view: memoryview, record: Record, name: str) -> memoryview:
        try:
            # The frame's claim is checked first: the decompressor would allocate whatever it says.
            claimed = zstandard.get_frame_parameters(view[:18]).content_size
            data = self._zstd.decompress(view, allow_extra_data=False) if claimed == record.length else b""
        except zstandard.ZstdError:
            raise CorruptPack("a record cannot be decompressed", name, record.offset) from None
        if len(data) != record.length:
            raise CorruptPack("a record decompresses to another length", name, record.offset)
        place = memoryview(self._scratch)[: record.length]
        place[:] = data
        return place

    def _check_end(self, seen: PackTotals) -> None:
        front = memoryview(self._front)
        self._exactly(front[4:END_SIZE], "its end record")
        _, records, covered, data_bytes, reserved, crc = _END.unpack(front[:END_SIZE])
        if zlib.crc32(front[: END_SIZE - 4]) != crc or reserved != 0:
            raise CorruptPack("its end record does not match its checksum")
        if (records, covered, data_bytes) != (seen.records, seen.bytes, seen.data_bytes):
            raise CorruptPack("records are missing or too many")
        if self._readinto(memoryview(bytearray(1))) != 0:
            raise CorruptPack("something follows its end record")
        self.totals = seen


def _parse_header(body: bytes) -> PackHeader:
    try:
        raw = json.loads(body)
        disks = tuple(PackDisk(disk["disk"], disk["volume"], disk["size"]) for disk in raw["disks"])
        header = PackHeader(raw["migration"], raw["generation"], raw["sequence"], disks)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CorruptPack("its header is not what a header holds") from None
    numbers = [header.generation, header.sequence, *(disk.size for disk in disks)]
    names = [header.migration, *(name for disk in disks for name in (disk.disk, disk.volume))]
    if (
        not 1 <= len(disks) <= MAX_DISKS
        or any(type(number) is not int or not 0 <= number <= MAX_DISK for number in numbers)
        or any(type(name) is not str or not name for name in names)
        or any(disk.size % SECTOR for disk in disks)
    ):
        raise CorruptPack("its header holds impossible values")
    return header
