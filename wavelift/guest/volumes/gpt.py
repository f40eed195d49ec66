"""GPT on a disk that is larger than the one it was made for: its backup belongs at the end.

There is no way back but another clone, and none is needed: what partitions hold is not touched, and until the last
write there is always one table of which the checksums are right.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from wavelift.guest.errors import UnsupportedGuest

# (offset, length) -> bytes, fewer at the end of the disk.
Read = Callable[[int, int], bytes]

_SECTORS = (512, 4096)
_HEADER = struct.Struct("<8s4sIIIQQQQ16sQIII")
_SIGNATURE = b"EFI PART"
_ENTRY = struct.Struct("<16s16sQQ")
# The standard's 128 entries of 128 bytes are 16 KiB.
_MOST_ENTRIES = 1024 * 1024
_MBR_TABLE, _MBR_ENTRY, _MBR_END = 446, 16, 510
_PROTECTIVE = 0xEE
_MBR_LARGEST = 0xFFFFFFFF
_REMEDY = "check the partition table on the source (sgdisk -v), repair it there (gdisk) and replicate again"


@dataclass(frozen=True)
class Header:
    """`raw` is the whole sector: what follows the fields is kept."""

    raw: bytes
    own: int
    other: int
    first_usable: int
    last_usable: int
    entries_at: int
    count: int
    entry_size: int
    entries_crc: int

    def packed(self) -> bytes:
        """The sector, with its checksum."""
        signature, revision, size, _, reserved, *_ = _HEADER.unpack_from(self.raw)
        guid = _HEADER.unpack_from(self.raw)[9]
        place = (self.own, self.other, self.first_usable, self.last_usable, guid)
        table = (self.entries_at, self.count, self.entry_size, self.entries_crc)
        fields = bytearray(self.raw)
        _HEADER.pack_into(fields, 0, signature, revision, size, 0, reserved, *place, *table)
        struct.pack_into("<I", fields, 16, zlib.crc32(fields[:size]))
        return bytes(fields)


@dataclass(frozen=True)
class Table:
    """A copy of which the checksums are right."""

    header: Header
    entries: bytes

    def partitions(self) -> Iterator[tuple[int, int, int]]:
        """Number, first and last sector of each."""
        size = self.header.entry_size
        for index in range(self.header.count):
            kind, _, first, last = _ENTRY.unpack_from(self.entries, index * size)
            if kind != bytes(16):
                yield index + 1, first, last


@dataclass(frozen=True)
class Write:
    offset: int
    content: bytes


@dataclass(frozen=True)
class Repair:
    """`writes` are in the order in which they are safe, each on the disk before the next."""

    reasons: tuple[str, ...]
    writes: tuple[Write, ...]


def repair(path: Path) -> Repair | None:
    """Put the table of the image or block device in order; what was done, None where nothing was to do.

    Raises `UnsupportedGuest` where both copies are damaged, or partitions reach beyond the end.
    """
    with path.open("r+b", buffering=0) as disk:
        planned = planned_repair(*_reader(disk.fileno()))
        for write in planned.writes if planned else ():
            # A short write of an image means that its file system is full.
            if os.pwrite(disk.fileno(), write.content, write.offset) != len(write.content):
                raise OSError(f"{path}: written only in part at {write.offset}")
            os.fsync(disk.fileno())
    return planned


def needed_repair(path: Path) -> Repair | None:
    """What `repair` would do. Nothing is written."""
    with path.open("rb", buffering=0) as disk:
        return planned_repair(*_reader(disk.fileno()))


def _reader(descriptor: int) -> tuple[Read, int]:
    size = os.lseek(descriptor, 0, os.SEEK_END)
    return lambda offset, length: os.pread(descriptor, length, offset), size


def planned_repair(read: Read, size: int) -> Repair | None:
    """What a disk of `size` bytes needs; None where there is no GPT, or it is as it should be."""
    mbr = read(0, 512)
    if not _is_protective(mbr):
        return None
    for sector in _SECTORS:
        last = size // sector - 1
        primary = _table(read, 1, sector, last)
        places = _backup_places(read, primary, mbr, sector, last)
        backup = next((found for place in places if (found := _table(read, place, sector, last))), None)
        if primary or backup:
            return _repair(mbr, primary, backup, sector, last)
    raise UnsupportedGuest("the disk's GPT is damaged, both its primary and its backup copy", _REMEDY)


def _repair(mbr: bytes, primary: Table | None, backup: Table | None, sector: int, last: int) -> Repair | None:
    good = primary or backup
    assert good is not None
    span = -(-len(good.entries) // sector)
    for number, _, end in good.partitions():
        if end >= last - span:
            raise UnsupportedGuest(
                f"partition {number} ends at sector {end}, and the disk has {last + 1} with its partition table",
                "make the volume at least as large as the source's disk",
            )
    if primary is None and good.header.first_usable < 2 + span:
        raise UnsupportedGuest("the disk's primary GPT is damaged, and there is no room to make it again", _REMEDY)
    at_end = backup if backup and backup.header.own == last else None
    # A disk of its old size keeps what its maker chose.
    same = (primary.header.other if primary else good.header.own) == last
    shape = good.header if same else replace(good.header, last_usable=last - span - 1)
    first = _at(shape, own=1, other=last, entries_at=good.header.entries_at if primary else 2)
    second = _at(shape, own=last, other=1, entries_at=at_end.header.entries_at if same and at_end else last - span)
    # The copy that is not relied upon goes first.
    order = (second, first) if primary else (first, second)
    there = {1: primary, last: at_end}
    reasons = []
    writes = []
    for header in order:
        wanted = Table(header, good.entries)
        if there[header.own] != wanted:
            writes.append(Write(header.entries_at * sector, good.entries))
            writes.append(Write(header.own * sector, header.packed()))
    former = backup.header.own if backup else None
    if primary is None:
        reasons.append("the primary GPT was damaged and was made again from its backup")
    if former is None:
        reasons.append(f"the backup GPT was missing or damaged and was made again at sector {last}")
    elif former != last:
        reasons.append(f"the backup GPT was moved from sector {former} to the disk's end, sector {last}")
    elif writes and primary:
        reasons.append("the two copies of the GPT did not agree with each other; the backup follows the primary")
    new_mbr = _sized(mbr, last)
    if new_mbr != mbr:
        writes.append(Write(0, new_mbr))
        reasons.append("the protective MBR did not cover the disk")
    if former is not None and former < last - span and not _taken(good, former):
        writes.append(Write(former * sector, bytes(sector)))
    return Repair(tuple(reasons), tuple(writes)) if writes else None


def _at(header: Header, own: int, other: int, entries_at: int) -> Header:
    placed = replace(header, own=own, other=other, entries_at=entries_at)
    return replace(placed, raw=placed.packed())


def _taken(table: Table, sector: int) -> bool:
    return any(first <= sector <= end for _, first, end in table.partitions())


def _table(read: Read, place: int, sector: int, last: int) -> Table | None:
    """What is at a sector, if its checksums are right."""
    raw = read(place * sector, sector)
    if len(raw) != sector or not raw.startswith(_SIGNATURE):
        return None
    _, _, length, crc, _, own, other, first, end, _, at, count, size, entries_crc = _HEADER.unpack_from(raw)
    if not _HEADER.size <= length <= sector or zlib.crc32(raw[:16] + bytes(4) + raw[20:length]) != crc:
        return None
    if own != place or size < 128 or size % 8 or not 0 < count * size <= _MOST_ENTRIES or not 2 <= at <= last:
        return None
    entries = read(at * sector, count * size)
    if zlib.crc32(entries) != entries_crc:
        return None
    return Table(Header(raw, own, other, first, end, at, count, size, entries_crc), entries)


def _backup_places(read: Read, primary: Table | None, mbr: bytes, sector: int, last: int) -> list[int]:
    """Where the backup may be: by the primary copy even if damaged, at the end, and where the disk once ended."""
    if primary is not None:
        return [place for place in dict.fromkeys((last, primary.header.other)) if 1 < place <= last]
    raw = read(sector, sector)
    named = _HEADER.unpack_from(raw)[6] if len(raw) == sector else 0
    ends = [start + length - 1 for _, kind, start, length in _mbr_entries(mbr) if kind == _PROTECTIVE]
    return [place for place in dict.fromkeys((last, named, *ends)) if 1 < place <= last]


def _mbr_entries(mbr: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Offset, type, first sector and length of each of the four."""
    for offset in range(_MBR_TABLE, _MBR_END, _MBR_ENTRY):
        yield offset, mbr[offset + 4], *struct.unpack_from("<II", mbr, offset + 8)


def _is_protective(mbr: bytes) -> bool:
    """Without it, Linux does not look for a GPT: what looks like one is left over."""
    return mbr[_MBR_END:] == b"\x55\xaa" and any(kind == _PROTECTIVE for _, kind, _, _ in _mbr_entries(mbr))


def _sized(mbr: bytes, last: int) -> bytes:
    """The protective MBR over the whole disk; one that names partitions too is its maker's matter."""
    used = [(offset, start) for offset, kind, start, _ in _mbr_entries(mbr) if kind]
    if len(used) != 1 or used[0][1] != 1:
        return mbr
    sized = bytearray(mbr)
    struct.pack_into("<I", sized, used[0][0] + 12, min(last, _MBR_LARGEST))
    return bytes(sized)
