"""A folder of packs and block maps: generations of some disks, kept as what each added. See docs/format.md.

A generation is there when its record is; packs, maps and the list of packs are durable before it. What an attempt
left that was given up has no record, or is not in its list, and is never read.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from blake3 import blake3
from pydantic import TypeAdapter

from wavelift.blocks.blockmap import DiskMap, generation_root, read_map, segments_of, write_map
from wavelift.blocks.errors import BlockError
from wavelift.blocks.files import sync_folder, write_durably
from wavelift.blocks.packheld import ROW, Held
from wavelift.blocks.sink_folder import TEMPORARY, FolderSink
from wavelift.holding import InUse, held

VERSION = 1
# Larger than on the wire: a pack costs a file and a flush, and none is sent again.
PACK_BYTES = 16 << 20
_MAX_RECORD = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class FolderError(BlockError):
    """A folder of packs that cannot be used as it is."""

    default_code = "bad_pack_folder"


@dataclass(frozen=True)
class KeptDisk:
    """A disk of a generation; `root` in hex, `size` in bytes."""

    disk: str
    size: int
    root: str
    consistency: str


@dataclass(frozen=True)
class Generation:
    """`base` is the generation whose blocks it builds on; `root` in hex; `packs`, their number and list's digest."""

    migration: str
    generation: int
    base: int | None
    root: str
    disks: tuple[KeptDisk, ...]
    packs: int
    packs_digest: str


_DECODER = TypeAdapter(Generation)


@dataclass(frozen=True)
class PackList:
    """Packs of one folder, in the packed rows of its list: an object each would take gigabytes for a large disk."""

    folder: Path
    raw: bytes

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Of each, in order: index of the disk, and the first and last + 1 byte of it that the pack speaks of."""
        return ((disk, start, end) for _, _, disk, _, start, end in ROW.iter_unpack(self.raw))

    def path(self, number: int) -> Path:
        return self.folder / f"{ROW.unpack_from(self.raw, number * ROW.size)[0].hex()}.pack"


class PackFolder:
    def __init__(self, folder: Path) -> None:
        """Raises `FolderError`: not there, or not one of ours."""
        self.folder = folder
        try:
            about = json.loads(_read(folder / "folder.json"))
        except (OSError, ValueError):
            raise FolderError(f"{folder} is no folder of packs.", "Name one, or a new one to begin with.") from None
        if about.get("version") != VERSION:
            raise FolderError(
                f"{folder} has version {about.get('version')}; this reads {VERSION}.", "Use the version that wrote it."
            )
        self.id = str(about["id"])

    @classmethod
    def create(cls, folder: Path) -> PackFolder:
        """A new one in a folder that is empty or not there. Raises `FolderError`, OSError."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(folder.iterdir()):
            raise FolderError(f"{folder} is not empty and no folder of packs.", "Name another folder.")
        for name in ("packs", "maps", "generations"):
            (folder / name).mkdir()
        write_durably(folder / "folder.json", json.dumps({"version": VERSION, "id": secrets.token_hex(16)}).encode())
        sync_folder(folder.absolute().parent)
        return cls(folder)

    @contextmanager
    def held(self) -> Iterator[None]:
        """For this process alone to write to. Raises `FolderError`."""
        try:
            with held(self.folder / "folder.json"):
                yield
        except InUse as error:
            raise FolderError(
                f"Another copy writes to {self.folder}: {error.who}.", "Wait until it has ended."
            ) from None

    def sink(self, generation: int) -> FolderSink:
        """For one worker of a copy."""
        folder = self._packs(generation)
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)
        return FolderSink(folder)

    def generations(self) -> list[int]:
        return sorted(int(path.name) for path in (self.folder / "generations").iterdir() if path.name.isdigit())

    def load(self, number: int) -> Generation:
        """Raises `FolderError` when it is not there or damaged."""
        path = self._record(number)
        try:
            crc, _, body = _read(path).partition(b" ")
            if crc != b"%08x" % zlib.crc32(body):
                raise ValueError
            if json.loads(body)["version"] != VERSION:
                raise FolderError(f"{path} is of another version.", "Use the version of Wavelift that wrote it.")
            return _DECODER.validate_json(body, strict=True)
        except FileNotFoundError:
            there = ", ".join(map(str, self.generations())) or "none"
            raise FolderError(
                f"{self.folder} has no generation {number}; it has: {there}.", "Name one of them."
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise FolderError(f"{path} is damaged.", "Bring it back from another copy of the folder.") from None

    def map(self, generation: Generation, disk: KeptDisk) -> DiskMap:
        """Raises `MapError`, `FolderError`."""
        found = read_map(self._map(disk.disk, generation.generation))
        if found.root.hex() != disk.root or found.size != disk.size:
            raise FolderError(
                f"The map of disk {disk.disk} is not that of generation {generation.generation}.",
                "Bring it back from another copy of the folder.",
            )
        return found

    def packs(self, generation: Generation) -> PackList:
        """Those that this generation added. Raises `FolderError`."""
        path = self._list(generation.generation)
        limit = generation.packs * ROW.size
        raw = _read(path, limit) if path.exists() and path.stat().st_size == limit else b""
        if len(raw) != limit or blake3(raw).hexdigest() != generation.packs_digest:
            raise FolderError(f"{path} is missing or damaged.", "Bring it back from another copy of the folder.")
        return PackList(self._packs(generation.generation), raw)

    def commit(self, migration: str, number: int, base: int | None, disks: Sequence[tuple[DiskMap, str]]) -> Generation:
        """Make what the sinks got a generation, of (map, consistency) of its disks, once its packs hold every block
        that differs from the base's. Again for the same content it changes nothing.

        Raises `BlocksLost`, `FolderError`, `MapError`, OSError.
        """
        kept = tuple(KeptDisk(_name(found.disk), found.size, found.root.hex(), mood) for found, mood in disks)
        root = generation_root((found.disk, found.root) for found, _ in disks).hex()
        if self._record(number).exists():
            there = self.load(number)
            if there.root == root:
                return there
            raise FolderError(f"{self.folder} has another generation {number} already.", "Copy in full, as a new one.")
        raw, stale = self._contribute(number, base, [found for found, _ in disks])
        for found, _ in disks:
            index = self._map(found.disk, number)
            index.parent.mkdir(exist_ok=True)
            write_map(index, found.disk, found.size, (found.table(part) for part in range(segments_of(found.size))))
            sync_folder(index.parent.parent)
        write_durably(self._list(number), raw)
        made = Generation(migration, number, base, root, kept, len(raw) // ROW.size, blake3(raw).hexdigest())
        body = json.dumps({"version": VERSION, **asdict(made)}).encode()
        write_durably(self._record(number), b"%08x %s" % (zlib.crc32(body), body))
        for path in stale:
            path.unlink()
        return made

    def discard(self, number: int) -> None:
        """What the sinks got for a generation that never came to be."""
        if not self._record(number).exists():
            shutil.rmtree(self._packs(number), ignore_errors=True)

    def _contribute(self, number: int, base: int | None, disks: Sequence[DiskMap]) -> tuple[bytes, list[Path]]:
        """The rows of the packs that hold blocks of these maps, and the files that do not: what attempts left that
        were given up. Raises `BlocksLost` when blocks are in none."""
        held = Held(disks)
        rows, stale = bytearray(), []
        folder = self._packs(number)
        for path in sorted(folder.iterdir()) if folder.exists() else []:
            row = None if path.name.endswith(TEMPORARY) else held.take(path)
            if row is None:
                stale.append(path)
            else:
                rows += row
        before = None if base is None else self.load(base)
        for place, found in enumerate(disks):
            held.require(place, None if before is None else self._base_map(before, found))
        return bytes(rows), stale

    def _base_map(self, before: Generation, found: DiskMap) -> DiskMap | None:
        disk = next((disk for disk in before.disks if disk.disk == found.disk), None)
        return None if disk is None else self.map(before, disk)

    def _packs(self, number: int) -> Path:
        return self.folder / "packs" / str(number)

    def _map(self, disk: str, number: int) -> Path:
        return self.folder / "maps" / _name(disk) / f"{number}.map"

    def _record(self, number: int) -> Path:
        return self.folder / "generations" / str(number)

    def _list(self, number: int) -> Path:
        return self.folder / "generations" / f"{number}.packs"


def _name(disk: str) -> str:
    """A disk's id as the name of a folder. Raises `FolderError`."""
    if not _NAME.fullmatch(disk):
        raise FolderError(f"The disk id {disk!r} cannot name a folder.", "Use letters, digits, '.', '_', '-'.")
    return disk


def _read(path: Path, limit: int = _MAX_RECORD) -> bytes:
    with path.open("rb") as file:
        return file.read(limit)
