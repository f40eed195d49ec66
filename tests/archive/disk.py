"""A disk image, the state of who copies it, and the archive it is copied to."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wavelift.agent.replication import Order, Target, replicate
from wavelift.agent.state import MigrationState
from wavelift.archive.archive import Archive
from wavelift.archive.commit import commit
from wavelift.archive.keys import KeyOf, derived
from wavelift.archive.layout import Generation
from wavelift.archive.sink import ArchiveSink
from wavelift.blocks.compress import Compression
from wavelift.blocks.sink import Receipt
from wavelift.sources.image import ImageSource
from wavelift.sources.packs import ArchivePointInTime, ArchiveSource
from wavelift.stores.base import Store
from wavelift.stores.directory import DirectoryStore

MIB = 1 << 20
SIZE = 12 * MIB + 3 * 512
MASTER = derived(bytes(range(32)))


class Stopped(Exception):
    """The copy was given up."""


class Watch:
    def step(self, name: str) -> None: ...

    def check(self) -> None: ...

    def progress(self, **_: int) -> None: ...


class Stopping:
    """The sink of a copy that is given up after its first pack."""

    takes_copies = False

    def __init__(self, sink: ArchiveSink) -> None:
        self._sink = sink

    def put(self, sequence: int, pack: memoryview) -> Receipt:
        self._sink.put(sequence, pack)
        raise Stopped

    def close(self) -> None:
        self._sink.close()


class Disk:
    def __init__(self, folder: Path, store: Store | None = None, key: KeyOf | None = None, size: int = SIZE) -> None:
        self.path, self.size = folder / "disk.raw", size
        with self.path.open("wb") as file:
            file.truncate(size)
        self.random = random.Random(7)
        self.state = folder / "state"
        if store is None:
            (folder / "kept").mkdir()
            store = DirectoryStore(folder / "kept")
        self.store, self.key = store, key
        self.archive = Archive.create(store, key=key)

    def write(self, offset: int, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def noise(self, offset: int, length: int) -> None:
        self.write(offset, self.random.randbytes(length))

    def copy(self, generation: int, base: int | None) -> Generation:
        return self.commit(generation, self.send(generation, base))

    def send(self, generation: int, base: int | None = None) -> dict[str, Any]:
        order = Order("web", generation, base, [self.target(generation)], compression=Compression(1))
        return replicate(self.state, order, Watch())

    def give_up(self, generation: int, base: int | None = None) -> list[str]:
        """A copy that is given up; the packs that it left."""
        target = replace(self.target(generation), open_sink=lambda: Stopping(self.archive.sink(generation)))
        with pytest.raises(Stopped):
            replicate(self.state, Order("web", generation, base, [target]), Watch())
        assert generation not in self.archive.generations()
        return self.packs(generation)

    def target(self, generation: int) -> Target:
        return Target("sda", ImageSource(self.path), "archive", lambda: self.archive.sink(generation), 2 * MIB)

    def commit(self, generation: int, result: dict[str, Any]) -> Generation:
        state = MigrationState(self.state, "web")
        found, base, begun = state.maps("sda").load(generation), result["base_used"], state.begun(generation)
        assert found is not None and begun is not None
        root = None if base is None else self.archive.load(base).root
        consistency = result["disks"][0]["consistency"]
        made = commit(self.archive, "web", generation, base, root, found, consistency, begun["first"])
        assert made.root == found.root.hex()
        state.commit(generation)
        return made

    def packs(self, generation: int) -> list[str]:
        return [entry.key for entry in self.store.list(f"packs/{generation}/")]

    def largest(self, generation: int) -> str:
        """The key of a pack full of data."""
        return max(self.store.list(f"packs/{generation}/"), key=lambda entry: entry.size).key

    def change(self, key: str, how: Callable[[bytearray], object]) -> None:
        raw = bytearray(self.store.get(key))
        how(raw)
        self.store.put(key, raw)

    def open(self, generation: int | None = None) -> ArchivePointInTime:
        """By somebody who knows nothing but the store and the key."""
        return ArchiveSource(lambda: Archive.open(self.store, self.key), generation).open()

    def read(self, generation: int | None = None) -> bytes:
        return content(self.open(generation))


def content(opened: ArchivePointInTime, step: int = MIB) -> bytes:
    found = bytearray(opened.size)
    at = 0
    for extent in opened.extents():
        assert extent.start == at
        at += extent.length
        for start in range(extent.start, at if not extent.zero else extent.start, step):
            opened.readinto(start, memoryview(found)[start : min(at, start + step)])
    assert at == opened.size
    opened.close()
    return bytes(found)


def flip(at: int) -> Callable[[bytearray], object]:
    def change(raw: bytearray) -> None:
        raw[at % len(raw)] ^= 1

    return change
