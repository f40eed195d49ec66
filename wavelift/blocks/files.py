"""Small files that are read whole, and replaced whole and durably."""

from __future__ import annotations

import os
from pathlib import Path

from wavelift.blocks.errors import MapTooLarge


def read_at_most(path: Path, limit: int) -> bytes:
    """A whole file. Raises OSError, and `MapTooLarge` before it reads one that is longer."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise MapTooLarge(str(path), limit)
        return file.read()


def write_whole(fd: int, data: bytes) -> None:
    """All of the data: the system may take a part of it at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file whole: after a crash it holds either all of the old or all of the new."""
    temporary = path.with_name(f".{path.name}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_whole(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make what was made or renamed in it durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
