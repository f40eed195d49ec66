"""Block maps: the digest table of one disk generation, a Merkle tree kept in files. See docs/format.md.

A map is an index file plus one table file per non-zero segment, named by its digest: generations share the
tables they have in common, and only touched segments are ever written.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from wavelift.blocks.digest import (
    BLOCK,
    DIGEST,
    MAX_DISK,
    SECTOR,
    SEGMENT,
    SEGMENT_BLOCKS,
    TABLE,
    ZERO_DIGEST,
    blocks_of,
)
from wavelift.blocks.errors import MapError, MapTooLarge, UnknownMap
from wavelift.blocks.files import read_at_most, write_durably

MAGIC = b"WLMAP\r\n\0"
VERSION = 1
MAX_NAME = 1024
_INDEX = struct.Struct("<8sHHIQQ")
MAX_INDEX = _INDEX.size + MAX_NAME + MAX_DISK // SEGMENT * DIGEST + 4
ZERO_TABLE = bytes(TABLE)
_DISK_DOMAIN = b"wavelift disk 1\0"
_GENERATION_DOMAIN = b"wavelift generation 1\0"


def segments_of(size: int) -> int:
    return -(-size // SEGMENT)


def table_size(size: int, segment: int) -> int:
    """Bytes of the digest table of a segment; the last one may be shorter."""
    return blocks_of(min(SEGMENT, size - segment * SEGMENT)) * DIGEST


def segment_digest(table: bytes | bytearray) -> bytes:
    """BLAKE3 of the table, or the zero sentinel for a segment of zeroes."""
    return ZERO_DIGEST if table == ZERO_TABLE[: len(table)] else blake3(table).digest()


def disk_root(size: int, segments: bytes) -> bytes:
    """The name of a disk's content: binds its size (bytes) and its segment digests."""
    return blake3(_DISK_DOMAIN + struct.pack("<Q", size) + segments).digest()


def generation_root(disks: Iterable[tuple[str, bytes]]) -> bytes:
    """The name of a whole generation over (disk id, disk root), in any order."""
    hasher = blake3(_GENERATION_DOMAIN)
    for disk, root in sorted(disks):
        name = disk.encode()
        hasher.update(struct.pack("<I", len(name)) + name + root)
    return hasher.digest()


class TableReader(Protocol):
    """Where the tables of maps are kept, by their digest in hex."""

    def read(self, name: str, at: int, length: int) -> bytes:
        """Fewer bytes where the table ends. Raises `MapError` when it cannot be read."""

    def place(self, name: str) -> str:
        """For people: where a table is."""


@dataclass(frozen=True)
class FolderTables:
    """Tables as files of one folder."""

    folder: Path

    def read(self, name: str, at: int, length: int) -> bytes:
        path = self.folder / name
        try:
            with path.open("rb", buffering=0) as file:
                return os.pread(file.fileno(), length, at)
        except OSError as error:
            raise MapError(f"The table {path} cannot be read: {error.strerror}.", "Run a full copy.") from None

    def place(self, name: str) -> str:
        return str(self.folder / name)


@dataclass(frozen=True)
class DiskMap:
    """One disk generation. `segments` holds the joined segment digests; `tables` reads what they name."""

    disk: str
    size: int
    segments: bytes
    tables: TableReader

    @property
    def root(self) -> bytes:
        return disk_root(self.size, self.segments)

    def segment(self, number: int) -> bytes:
        return self.segments[number * DIGEST : (number + 1) * DIGEST]

    def table(self, number: int) -> bytes:
        """The digests of a segment, checked. Raises `MapError`."""
        name = self.segment(number)
        length = table_size(self.size, number)
        if name == ZERO_DIGEST:
            return ZERO_TABLE[:length]
        # One byte more would show that it is too long.
        table = self.tables.read(name.hex(), 0, length + 1)
        if len(table) > length:
            raise MapTooLarge(f"The table {self.tables.place(name.hex())}", length)
        if len(table) != length or segment_digest(table) != name:
            raise MapError(f"The table {self.tables.place(name.hex())} is damaged.", "Run a full copy.")
        return table

    def digests(self, first: int, count: int) -> bytes:
        """Those of `count` blocks from number `first` on, fewer at the disk's end, unchecked: what is guessed from
        them is to be checked elsewhere. Raises `MapError`."""
        found = b""
        while count > 0 and first * BLOCK < self.size:
            segment, within = divmod(first, SEGMENT_BLOCKS)
            wanted = min(count, blocks_of(min(SEGMENT, self.size - segment * SEGMENT)) - within)
            found += self._part(segment, within * DIGEST, wanted * DIGEST)
            first, count = first + wanted, count - wanted
        return found

    def _part(self, number: int, at: int, length: int) -> bytes:
        name = self.segment(number)
        if name == ZERO_DIGEST:
            return bytes(length)
        return self.tables.read(name.hex(), at, length).ljust(length, b"\0")

    def require_tables(self, check: Callable[[], None] = lambda: None) -> None:
        """Read every table; `check` may raise to stop early. Raises `MapError` for the first one unusable."""
        for number in range(segments_of(self.size)):
            check()
            self.table(number)


def encode_index(disk: str, size: int, segments: bytes) -> bytes:
    """Raises `MapTooLarge` for a disk's id of more than 1,024 bytes."""
    name = disk.encode()
    if len(name) > MAX_NAME:
        raise MapTooLarge("The disk's id", MAX_NAME)
    body = _INDEX.pack(MAGIC, VERSION, 0, len(name), size, len(segments) // DIGEST) + name + segments
    return body + struct.pack("<I", zlib.crc32(body))


def decode_index(data: bytes, tables: TableReader) -> DiskMap:
    """Raises `MapError` and its kinds for anything but a whole, undamaged index of this version."""
    if len(data) < _INDEX.size + 4 or data[:8] != MAGIC:
        raise MapError("This is not a block map.", "Run a full copy.")
    if len(data) > MAX_INDEX:
        raise MapTooLarge("A block map", MAX_INDEX)
    _, version, flags, length, size, count = _INDEX.unpack_from(data)
    if version != VERSION or flags:
        raise UnknownMap(version, flags)
    if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise MapError("The block map does not match its checksum.", "Run a full copy.")
    if length > MAX_NAME:
        raise MapTooLarge("The disk's id", MAX_NAME)
    end = _INDEX.size + length
    if size > MAX_DISK or size % SECTOR or count != segments_of(size) or len(data) != end + count * DIGEST + 4:
        raise MapError("The block map's sizes contradict each other.", "Run a full copy.")
    try:
        disk = data[_INDEX.size : end].decode()
    except UnicodeDecodeError:
        raise MapError("The block map's disk id is not text.", "Run a full copy.") from None
    return DiskMap(disk, size, data[end:-4], tables)


class Tabled(Protocol):
    """What can become a map: its tables in order, segment by segment."""

    @property
    def size(self) -> int: ...

    def tables(self) -> Iterable[bytes]: ...


def write_map(index: Path, disk: str, size: int, tables: Iterable[bytes]) -> DiskMap:
    """A map in the file `index`, its tables in the folder beside it; durable, and not there before all of it is."""
    folder = _tables_of(index)
    folder.mkdir(parents=True, exist_ok=True)
    digests = bytearray()
    for table in tables:
        name = segment_digest(table)
        digests += name
        # A damaged table would be named by this map too, so being there is not enough.
        if name != ZERO_DIGEST and not _holds(folder / name.hex(), table):
            write_durably(folder / name.hex(), table)
    write_durably(index, encode_index(disk, size, bytes(digests)))
    return DiskMap(disk, size, bytes(digests), FolderTables(folder))


def read_map(index: Path) -> DiskMap:
    """Raises `MapError` and its kinds when there is none, or a damaged one."""
    try:
        data = read_at_most(index, MAX_INDEX)
    except OSError as error:
        raise MapError(f"The block map {index} cannot be read: {error.strerror}.", "Run a full copy.") from None
    return decode_index(data, FolderTables(_tables_of(index)))


def _tables_of(index: Path) -> Path:
    return index.parent / "segments"


class MapStore:
    """The maps of one disk, in one folder: `NUMBER.map` and `segments/DIGEST`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._segments = folder / "segments"
        self._segments.mkdir(parents=True, exist_ok=True)

    def freeze(self, disk: str, generation: int, work: Tabled) -> DiskMap:
        """Turn tables into a map, durably; an interrupted one leaves no map behind."""
        return write_map(self._index(generation), disk, work.size, work.tables())

    def load(self, generation: int) -> DiskMap | None:
        """The map of a generation, None when there is none. Raises `MapError` when damaged."""
        index = self._index(generation)
        return read_map(index) if index.exists() else None

    def prune(self, keep: Iterable[int]) -> None:
        """Drop the maps of all other generations and the tables nobody names any more."""
        kept = {self._index(number) for number in keep}
        for path in self.folder.glob("*.map"):
            if path not in kept:
                path.unlink()
        used: set[str] = set()
        for path in self.folder.glob("*.map"):
            found = decode_index(read_at_most(path, MAX_INDEX), FolderTables(self._segments))
            used.update(found.segment(number).hex() for number in range(segments_of(found.size)))
        for path in self._segments.iterdir():
            if path.name not in used:
                path.unlink()

    def _index(self, generation: int) -> Path:
        return self.folder / f"{generation}.map"


def _holds(path: Path, data: bytes) -> bool:
    try:
        return read_at_most(path, len(data)) == data
    except (OSError, MapTooLarge):
        return False
