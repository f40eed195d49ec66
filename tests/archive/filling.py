"""Archives that hold generations of small disks, and targets to hydrate."""

from __future__ import annotations

import random
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from wavelift.archive.archive import Archive
from wavelift.archive.commit import commit
from wavelift.archive.layout import Generation
from wavelift.blocks.attempts import PACKS
from wavelift.blocks.blockmap import DiskMap, segments_of, table_size, write_map
from wavelift.blocks.crypto import KeyEncryptionKey
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, digest
from wavelift.blocks.pack import PackDisk, PackHeader, PackWriter
from wavelift.stores.base import Store
from wavelift.stores.memory import MemoryStore

DISK = "sda"
KEY = KeyEncryptionKey(bytes(range(32)))
# What is not zero of a disk: a block's number, and its bytes.
Blocks = dict[int, bytes]


@cache
def noise(seed: int, size: int = BLOCK) -> bytes:
    return random.Random(seed).randbytes(size)


def block_at(size: int, number: int, seed: int) -> bytes:
    """The last one may be shorter."""
    return noise(seed, min(BLOCK, size - number * BLOCK))


def make_archive(store: Store | None = None, *, sealed: bool = False) -> Archive:
    return Archive.create(store or MemoryStore(), key=(lambda _: KEY) if sealed else None)


def map_of(size: int, blocks: Mapping[int, bytes], folder: Path) -> DiskMap:
    tables = [bytearray(table_size(size, number)) for number in range(segments_of(size))]
    for number, data in blocks.items():
        segment, at = divmod(number * BLOCK, SEGMENT)
        tables[segment][at // BLOCK * DIGEST : (at // BLOCK + 1) * DIGEST] = digest(memoryview(data))
    return write_map(folder / "disk.map", DISK, size, map(bytes, tables))


def pack_of(size: int, sequence: int, blocks: Mapping[int, bytes], generation: int = 1) -> bytes:
    """Neighbours become one record."""
    header = PackHeader("web", generation, sequence, (PackDisk(DISK, "archive", size),))
    writer = PackWriter(bytearray(8192 + sum(len(data) + 256 for data in blocks.values())), header)
    for number, data in sorted(blocks.items()):
        view = writer.slot(len(data))
        view[:] = data
        writer.add_data(0, number * BLOCK, view, digest(view))
    return bytes(writer.finish())


def add(
    archive: Archive,
    number: int,
    size: int,
    blocks: Blocks,
    packs: Sequence[Mapping[int, bytes]],
    *,
    base: Generation | None = None,
    leftovers: Sequence[Mapping[int, bytes]] = (),
) -> Generation:
    """A generation of this content, made of these packs; `leftovers` are those of an attempt that was given up."""
    sink = archive.sink(number)
    for sequence, each in enumerate(leftovers, PACKS):
        sink.put(sequence, memoryview(pack_of(size, sequence, each, number)))
    for sequence, each in enumerate(packs, 2 * PACKS):
        sink.put(sequence, memoryview(pack_of(size, sequence, each, number)))
    with tempfile.TemporaryDirectory() as folder:
        found = map_of(size, blocks, Path(folder))
        before = (None, None) if base is None else (base.generation, base.root)
        return commit(archive, "web", number, *before, found, "crash", 2 * PACKS)


class MemoryTarget:
    """Counts what is written of each block."""

    def __init__(self, blocks: Blocks | None = None) -> None:
        self.blocks: Blocks = dict(blocks or {})
        self.written: list[int] = []
        self._lock = threading.Lock()

    @contextmanager
    def writing(self) -> Iterator[MemoryTarget]:
        yield self

    def write(self, offset: int, data: memoryview) -> None:
        with self._lock:
            for at in range(0, len(data), BLOCK):
                number = (offset + at) // BLOCK
                self.blocks[number] = bytes(data[at : at + BLOCK])
                self.written.append(number)

    def zero(self, offset: int, length: int) -> None:
        with self._lock:
            for number in [each for each in self.blocks if offset <= each * BLOCK < offset + length]:
                del self.blocks[number]
