"""Reads packs, trusting nothing in them. See docs/format.md."""

from __future__ import annotations

import json
import mmap
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import zstandard

from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, blocks_of, digests
from wavelift.blocks.errors import CorruptPack, PackError, PackKeyMissing, PackTooLarge, UnknownPack
from wavelift.blocks.pack_layout import (
    BASIC,
    DATA_MARK,
    END,
    END_MARK,
    END_SIZE,
    MAGIC,
    MAX_HEADER,
    MAX_PACK,
    MAX_RECORD,
    MAX_RECORD_FRONT,
    MAX_RECORDS,
    ORIGIN,
    PLAIN,
    PREFIX,
    RECORD,
    RECORD_HEADER,
    SEAL,
    SEALED,
    VERSIONS,
    Codec,
    PackDisk,
    PackHeader,
    PackTotals,
    ReadInto,
    Record,
    possible,
)

if TYPE_CHECKING:  # who reads plain packs needs no cryptography
    from wavelift.blocks.crypto import KeyRing

_CODECS = {codec.value: codec for codec in Codec}
_HEADER_KEYS = {"migration", "generation", "sequence", "disks"}
_DISK_KEYS = {"disk", "volume", "size"}


class PackReader:
    """Reads a pack from a stream, record by record, in bounded memory.

    `readinto(view)` fills the view and returns how many bytes it got; fewer means the end of the stream.
    Raises `PackError` and its kinds: `UnknownPack` for what this version does not know, `PackTooLarge` for
    what goes beyond its limits, `PackKeyMissing`, `CorruptPack` for damage; nothing else.
    """

    def __init__(
        self,
        readinto: ReadInto,
        scratch: bytearray | mmap.mmap | None = None,
        keys: KeyRing | None = None,
        *,
        copies: bool = False,
    ) -> None:
        """`scratch`, 1 MiB, may be handed from pack to pack: fresh memory is slow. Data is always in it,
        so that an aligned one makes aligned writes. `keys` open sealed packs; plain ones need none.
        `copies`: the caller has volumes to copy from; without them a pack with copy records is refused."""
        self._readinto = _limited(readinto)
        self._scratch = bytearray(MAX_RECORD) if scratch is None else scratch
        self._front = bytearray(MAX_RECORD_FRONT)
        self._zstd = zstandard.ZstdDecompressor()
        self._copies = copies
        self._version = BASIC
        self.sealed = False
        self.header = self._read_header(keys)
        self.totals: PackTotals | None = None

    def records(self) -> Iterator[tuple[Record, memoryview]]:
        """(record, checked data) pairs; the data is valid until the next one. Zero records have none.

        Of a copy record there is the room for its data, for the caller to fill from the origin and to check.
        """
        records = covered = data_bytes = 0
        front = memoryview(self._front)
        while True:
            # Records and the end have heads of one length.
            mark = bytes(self._exactly(front[:RECORD_HEADER], "a record")[:4])
            if mark == END_MARK:
                self._check_end(PackTotals(records, covered, data_bytes))
                return
            if mark != DATA_MARK:
                raise CorruptPack("a record does not begin as one")
            if records == MAX_RECORDS:
                raise PackTooLarge("number of records", f"{MAX_RECORDS}")
            record = self._read_record()
            yield record, self._payload(record)
            records += 1
            covered += record.length
            data_bytes += record.length if record.codec in (Codec.RAW, Codec.ZSTD) else 0

    def _exactly(self, view: memoryview, what: str) -> memoryview:
        if self._readinto(view) != len(view):
            raise CorruptPack(f"it ends within {what}")
        return view

    def _read_header(self, keys: KeyRing | None) -> PackHeader:
        flags, head, body = self._read_front()
        if flags == SEALED:
            if keys is None:
                raise PackKeyMissing(body[:16].hex(), body[16:32].hex())
            self._readinto = keys.open(head, self._readinto)
            self.sealed = True
            flags, _, body = self._read_front()
            if flags != PLAIN:
                raise UnknownPack("flags", f"{flags} within a seal")
        return _parse_header(body)

    def _read_front(self) -> tuple[int, bytes, bytes]:
        """Flags, the whole front as it stands in the pack, and the part of it that the checksum covers."""
        prefix = bytes(self._exactly(memoryview(bytearray(PREFIX.size)), "its header"))
        magic, version, flags, length, crc = PREFIX.unpack(prefix)
        if magic != MAGIC:
            raise PackError("This is not a pack.", "Check what was sent here.")
        if version not in VERSIONS or (version != BASIC and flags == SEALED):
            raise UnknownPack("version", version)
        if flags not in (PLAIN, SEALED):
            raise UnknownPack("flags", flags)
        if flags == SEALED and length != SEAL.size:
            raise UnknownPack("envelope", f"of {length} bytes")
        if length > MAX_HEADER:
            raise PackTooLarge("header", f"{MAX_HEADER} bytes")
        body = bytes(self._exactly(memoryview(bytearray(length)), "its header"))
        if zlib.crc32(body) != crc:
            raise CorruptPack("its header does not match its checksum")
        self._version = version
        return flags, prefix + body, body

    def _read_record(self) -> Record:
        front = memoryview(self._front)
        _, codec, reserved, disk, offset, length, payload, crc = RECORD.unpack(front[:RECORD_HEADER])
        known = codec in _CODECS
        size = blocks_of(min(length, MAX_RECORD)) * DIGEST if known and codec != Codec.ZERO else 0
        whole = size + ORIGIN.size if codec == Codec.COPY else size
        rest = bytes(self._exactly(front[RECORD_HEADER : RECORD_HEADER + whole], "a record's digests"))
        if zlib.crc32(rest, zlib.crc32(front[: RECORD_HEADER - 4])) != crc:
            raise CorruptPack("a record's header does not match its checksum")
        if codec == Codec.COPY and (self._version == BASIC or not self._copies):
            known = False
        if reserved != 0 or not known:
            raise UnknownPack("codec", codec if reserved == 0 else f"{codec} with flags {reserved}")
        origin = None
        if codec == Codec.COPY:
            there, *zeroes, at = ORIGIN.unpack(rest[size:])
            if any(zeroes):
                raise UnknownPack("origin", rest[size:].hex())
            origin = (there, at)
        return self._sane(Record(disk, offset, length, _CODECS[codec], rest[:size], payload, origin))

    def _sane(self, record: Record) -> Record:
        if record.disk >= len(self.header.disks):
            raise CorruptPack(f"a record names disk {record.disk} of {len(self.header.disks)}")
        disk = self.header.disks[record.disk]
        end = record.offset + record.length
        limit = SEGMENT if record.codec is Codec.ZERO else MAX_RECORD
        whole = record.length % BLOCK == 0 or end == disk.size
        if record.length > limit:
            raise PackTooLarge(f"record on disk {disk.disk} at byte {record.offset}", f"{limit} bytes")
        if not record.length or record.offset % BLOCK or end > disk.size or not whole:
            raise CorruptPack(f"a record covers {record.length} bytes there", disk.disk, record.offset)
        payload_fits = {
            Codec.ZERO: record.payload == 0,
            Codec.RAW: record.payload == record.length,
            Codec.ZSTD: 0 < record.payload < record.length,
            Codec.COPY: record.payload == ORIGIN.size,
        }[record.codec]
        if not payload_fits:
            raise CorruptPack("a record's payload has a wrong length", disk.disk, record.offset)
        if record.origin is not None:
            self._sane_origin(record, *record.origin)
        return record

    def _sane_origin(self, record: Record, there: int, at: int) -> None:
        disks = self.header.disks
        if there >= len(disks) or at % BLOCK or at + record.length > disks[there].size:
            raise CorruptPack(
                f"a record copies from byte {at} of disk {there} of {len(disks)}",
                disks[record.disk].disk,
                record.offset,
            )

    def _payload(self, record: Record) -> memoryview:
        name = self.header.disks[record.disk].disk
        if record.codec is Codec.COPY:
            return memoryview(self._scratch)[: record.length]
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
            frame = zstandard.get_frame_parameters(view[:18])
            fits = frame.content_size == record.length and frame.window_size <= MAX_RECORD
            data = self._zstd.decompress(view, allow_extra_data=False) if fits else b""
        except zstandard.ZstdError:
            raise CorruptPack("a record cannot be decompressed", name, record.offset) from None
        if len(data) != record.length:
            raise CorruptPack("a record decompresses to another length", name, record.offset)
        place = memoryview(self._scratch)[: record.length]
        place[:] = data
        return place

    def _check_end(self, seen: PackTotals) -> None:
        front = memoryview(self._front)
        _, records, covered, data_bytes, reserved, crc = END.unpack(front[:END_SIZE])
        if zlib.crc32(front[: END_SIZE - 4]) != crc or reserved != 0:
            raise CorruptPack("its end record does not match its checksum")
        if (records, covered, data_bytes) != (seen.records, seen.bytes, seen.data_bytes):
            raise CorruptPack("records are missing or too many")
        if self._readinto(memoryview(bytearray(1))) != 0:
            raise CorruptPack("something follows its end record")
        self.totals = seen


def from_memory(pack: memoryview) -> ReadInto:
    """For a pack that is all there."""
    at = 0

    def readinto(view: memoryview) -> int:
        nonlocal at
        count = min(len(view), len(pack) - at)
        view[:count] = pack[at : at + count]
        at += count
        return count

    return readinto


def _limited(readinto: ReadInto) -> ReadInto:
    taken = 0

    def limited(view: memoryview) -> int:
        nonlocal taken
        got = readinto(view)
        taken += got
        if taken > MAX_PACK:
            raise PackTooLarge("pack", f"{MAX_PACK} bytes")
        return got

    return limited


def _parse_header(body: bytes) -> PackHeader:
    try:
        raw = json.loads(body)
        unknown = raw.keys() - _HEADER_KEYS
        unknown |= {key for disk in raw["disks"] for key in disk} - _DISK_KEYS
        disks = tuple(PackDisk(disk["disk"], disk["volume"], disk["size"]) for disk in raw["disks"])
        header = PackHeader(raw["migration"], raw["generation"], raw["sequence"], disks)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CorruptPack("its header is not what a header holds") from None
    if unknown:
        raise UnknownPack("header key", sorted(unknown)[0])
    if not possible(header):
        raise CorruptPack("its header holds impossible values")
    return header
