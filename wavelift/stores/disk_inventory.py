"""What an offline disk knows of the packs of its whole set, beside its label: lines that are only ever appended.

So a pack that is gone, or on a disk that is not here, is missed by name, without any key. See docs/offline.md.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wavelift.blocks.files import sync_folder, write_whole

FILE = "wavelift-inventory"


@dataclass(frozen=True, slots=True)
class Held:
    """A pack that the disk of the id `disk` should hold; `size` in bytes."""

    disk: str
    size: int


class Inventory:
    """One disk's; all methods raise OSError, and may be called from several threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._unsynced = False
        self._syncing = threading.Lock()

    def add(self, packs: Iterable[tuple[str, Held]]) -> None:
        """Durable after the next `sync`."""
        self._append(b"".join(_line(f"+ {held.disk} {held.size} {key}") for key, held in packs))

    def drop(self, keys: Iterable[str]) -> None:
        self._append(b"".join(_line(f"- {key}") for key in keys))

    def sync(self) -> None:
        with self._syncing:
            if self._unsynced:
                self._unsynced = False
                with self._path.open("rb") as file:
                    os.fsync(file.fileno())
                sync_folder(self._path.parent)

    def read(self) -> dict[str, Held]:
        """By key. Lines that a crash cut short are of packs whose generation was not finished."""
        found: dict[str, Held] = {}
        if not self._path.exists():
            return found
        with self._path.open("rb") as file:
            for line in file:
                crc, _, body = line.rstrip(b"\n").partition(b" ")
                if crc != b"%08x" % zlib.crc32(body):
                    continue
                what, *fields = body.decode().split(" ")
                if what == "+":
                    found[fields[2]] = Held(fields[0], int(fields[1]))
                else:
                    found.pop(fields[0], None)
        return found

    def _append(self, lines: bytes) -> None:
        if not lines:
            return
        # Never made here: it would lie beside where its disk belongs.
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            self._unsynced = True
            write_whole(fd, lines)
        finally:
            os.close(fd)


def _line(body: str) -> bytes:
    """Begins with the line's end, so that it stands apart from one before it that was cut short."""
    raw = body.encode()
    return b"\n%08x %s" % (zlib.crc32(raw), raw)
