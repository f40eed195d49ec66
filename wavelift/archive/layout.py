"""What an archive's objects are called, and what their lists and records hold. See docs/format.md."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TypeVar

from blake3 import blake3
from pydantic import TypeAdapter, ValidationError

from wavelift.blocks.digest import BLOCK

T = TypeVar("T")
VERSION = 2
ABOUT = "archive.json"
MAPS = "maps/"
SEGMENTS = "maps/segments/"
PACKS = "packs/"
GENERATIONS = "generations/"
LOCKS = "locks/"
SWEPT = "swept/"
MAX_RECORD = 1 << 16
# A pack in the list of a generation: sequence, first block, blocks, bytes of the object, its BLAKE3.
ROW = struct.Struct("<QQQQ32s")
_NAME = re.compile(r"([0-9a-f]{13})-([0-9a-f]{1,13})-([0-9a-f]{1,13})-([0-9a-f]{64})\.pack")


def record_key(generation: int) -> str:
    return f"{GENERATIONS}{generation}"


def list_key(generation: int) -> str:
    return f"{GENERATIONS}{generation}.packs"


def swept_key(generation: int) -> str:
    """Says that packs of a generation were deleted, and of which attempt the last of them was, in decimal digits:
    what it put, or one before it, cannot become one any more."""
    return f"{SWEPT}{generation}"


def map_key(generation: int) -> str:
    return f"{MAPS}{generation}.map"


def table_key(name: str) -> str:
    """`name` is the digest of the table, in hex."""
    return f"{SEGMENTS}{name}"


def packs_prefix(generation: int) -> str:
    return f"{PACKS}{generation}/"


@dataclass(frozen=True)
class Row:
    """A pack: `digest` and `size` in bytes of the object as it lies in the store, sealed or not, and the blocks it
    speaks of: bytes `start` to `end` of the disk, whose last block may be shorter."""

    sequence: int
    start: int
    end: int
    digest: bytes
    size: int

    @property
    def name(self) -> str:
        first, blocks = self.start // BLOCK, (self.end - self.start) // BLOCK
        return f"{self.sequence:013x}-{first:x}-{blocks:x}-{self.digest.hex()}.pack"

    def key(self, generation: int) -> str:
        return packs_prefix(generation) + self.name

    def packed(self) -> bytes:
        return ROW.pack(self.sequence, self.start // BLOCK, (self.end - self.start) // BLOCK, self.size, self.digest)


def row_of(name: str, size: int) -> Row | None:
    """By a pack's name and the size of its object in bytes; None for what is not called as a pack is."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    sequence, first, blocks = (int(part, 16) for part in found.groups()[:3])
    return Row(sequence, first * BLOCK, (first + blocks) * BLOCK, bytes.fromhex(found[4]), size)


@dataclass(frozen=True)
class PackList:
    """Packs of one generation, in the packed rows of its list: an object each would take gigabytes for a large disk."""

    generation: int
    raw: bytes

    def __iter__(self) -> Iterator[Row]:
        for sequence, first, blocks, size, digest in ROW.iter_unpack(self.raw):
            yield Row(sequence, first * BLOCK, (first + blocks) * BLOCK, digest, size)

    def __len__(self) -> int:
        return len(self.raw) // ROW.size

    def __getitem__(self, number: int) -> Row:
        sequence, first, blocks, size, digest = ROW.unpack_from(self.raw, number * ROW.size)
        return Row(sequence, first * BLOCK, (first + blocks) * BLOCK, digest, size)

    def key(self, row: Row) -> str:
        return row.key(self.generation)

    @property
    def digest(self) -> str:
        return blake3(self.raw).hexdigest()

    @classmethod
    def of(cls, generation: int, rows: Iterable[Row]) -> PackList:
        """In the order of their names."""
        ordered = sorted(rows, key=lambda row: row.name)
        return cls(generation, b"".join(row.packed() for row in ordered))


@dataclass(frozen=True)
class Generation:
    """A record. `base` is the generation whose blocks it builds on, which may lie elsewhere: `base_root` is what joins
    them. `root` is the disk's, as `base_root` in hex; `packs` how many it added, of `pack_bytes` together, with their
    list's digest. `size` in bytes, `made_at` in seconds since the epoch."""

    migration: str
    disk: str
    generation: int
    base: int | None
    base_root: str | None
    size: int
    root: str
    consistency: str
    packs: int
    pack_bytes: int
    packs_digest: str
    made_at: int


@dataclass(frozen=True)
class Origin:
    """What a clone was made of: the prefix of another archive, and the generation there."""

    prefix: str
    generation: int


@dataclass(frozen=True)
class About:
    """What `archive.json` says: the archive's own random id, in hex, and the id of the key that seals it."""

    version: int
    id: str
    key: str | None
    origin: Origin | None


_RECORD = TypeAdapter(Generation)
_ABOUT = TypeAdapter(About)


def encode_record(made: Generation) -> bytes:
    body = json.dumps({"version": VERSION, **asdict(made)}).encode()
    return b"%08x %s" % (zlib.crc32(body), body)


def decode_record(data: bytes) -> Generation:
    """Raises ValueError for anything but a whole record of this version."""
    crc, _, body = data.partition(b" ")
    if crc != b"%08x" % zlib.crc32(body):
        raise ValueError("its checksum is wrong")
    about = json.loads(body)
    if not isinstance(about, dict) or about.pop("version", None) != VERSION:
        raise ValueError("it is of another version")
    return _strict(_RECORD, json.dumps(about).encode())


def encode_about(about: About) -> bytes:
    return json.dumps(asdict(about)).encode()


def decode_about(data: bytes) -> About:
    """Raises ValueError for anything but what an archive of this version has."""
    found = _strict(_ABOUT, data)
    if found.version != VERSION:
        raise ValueError(f"it has version {found.version}, and this reads {VERSION}")
    return found


def _strict(adapter: TypeAdapter[T], body: bytes) -> T:
    try:
        return adapter.validate_json(body, strict=True, extra="forbid")
    except ValidationError as error:
        raise ValueError(f"it is not what one holds: {error.errors()[0]['loc']}") from None
