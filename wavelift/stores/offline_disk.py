"""One disk of an offline set: its label, its objects, its inventory, and how much room is left."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from wavelift.stores.base import NotThere
from wavelift.stores.directory import DirectoryStore
from wavelift.stores.disk_inventory import Inventory
from wavelift.stores.disk_label import DiskLabel

# Beside it at the root lie the label and the inventory, and what file systems put there of themselves.
OBJECTS = "wavelift"
PACKS = "packs"
# Of a disk's size, kept free of packs: block maps go to every disk and take 1/2048 of what they speak of.
_RESERVE = 64


def is_pack(key: str) -> bool:
    """Whether an object lies on one disk of the set. All others lie on each."""
    return PACKS in key.split("/")[:-1]


@dataclass(frozen=True)
class Copy:
    """Of an object that lies on every disk: bytes, and when it was written."""

    size: int
    at: float


class OfflineDisk:
    def __init__(self, folder: Path, label: DiskLabel) -> None:
        self.folder = folder
        self.label = label
        self.store = DirectoryStore(folder / OBJECTS, f"{label.label} ({folder})")
        self.inventory = Inventory(folder)
        self._lock = threading.Lock()
        self._promised = 0

    @property
    def size(self) -> int:
        """Of its file system, in bytes. Raises OSError."""
        about = os.statvfs(self.folder)
        return about.f_blocks * about.f_frsize

    @property
    def free(self) -> int:
        """In bytes, of which packs do not take the reserve. Raises OSError."""
        about = os.statvfs(self.folder)
        return about.f_bavail * about.f_frsize

    @property
    def room(self) -> int:
        """For packs, in bytes. Raises OSError."""
        return max(0, self.free - self.size // _RESERVE)

    @contextmanager
    def promised(self, size: int) -> Iterator[bool]:
        """Whether there is room for a pack; while it is written, others count with it. Raises OSError."""
        with self._lock:
            fits = size <= self.room - self._promised
            size = size if fits else 0
            self._promised += size
        try:
            yield fits
        finally:
            with self._lock:
                self._promised -= size

    def has(self, key: str) -> bool:
        """Raises `StoreError` where the disk cannot tell."""
        try:
            self.store.size(key)
        except NotThere:
            return False
        return True

    def has_packs(self) -> bool:
        """Raises OSError."""
        top = self.folder / OBJECTS
        return any(names and PACKS in Path(folder).relative_to(top).parts for folder, _, names in os.walk(top))

    def written_at(self, key: str) -> float:
        """In seconds since the epoch, by whatever clock; 0 for what cannot be found, which reading it explains."""
        try:
            return (self.folder / OBJECTS / key).stat().st_mtime
        except OSError:
            return 0.0

    def shared(self) -> dict[str, Copy]:
        """The objects that lie on every disk. Raises OSError."""
        top = self.folder / OBJECTS
        found = {}
        for folder, inside, names in os.walk(top):
            if PACKS in inside:
                inside.remove(PACKS)
            for path in (Path(folder, name) for name in names if not name.startswith(".")):
                # One that is deleted meanwhile is none.
                with suppress(FileNotFoundError):
                    about = path.stat()
                    found[path.relative_to(top).as_posix()] = Copy(about.st_size, about.st_mtime)
        return found
