"""A directory as a store: each object a file, written past the page cache in large pieces where that is possible."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wavelift.blocks.files import sync_folder
from wavelift.blocks.volume import write_past_cache
from wavelift.stores.base import AlreadyThere, Denied, Entry, Full, NotThere, StoreError, Unavailable, checked

STEP = 4 << 20
# No key has a part that begins so.
_TEMPORARY = ".new-"
_LOCK = _TEMPORARY + "lock"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
# What vfat, exFAT and others say to a hard link.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


class DirectoryStore:
    """Of one process or several: a link makes what is new, a rename what replaces. Where the file system has no links,
    a rename makes what is new too, one at a time; one that replaces at that very moment may be lost then."""

    def __init__(self, folder: Path, name: str | None = None) -> None:
        """For a folder that is there; `name` is for people, else its path."""
        self._folder = folder
        self.name = name or str(folder)
        self._local = threading.local()

    def put(self, key: str, data: bytes | bytearray | memoryview, *, new: bool = False) -> None:
        path = self._path(key)
        try:
            self._make_room(path.parent)
            temporary = path.with_name(_TEMPORARY + secrets.token_hex(8))
            try:
                write_past_cache(temporary, memoryview(data), self._buffer())
                if new:
                    self._make(temporary, path)
                else:
                    temporary.replace(path)
            except FileExistsError:
                raise AlreadyThere(self.name, key) from None
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(path.parent)
        except OSError as error:
            raise self._explained(error, f"{key} cannot be written") from error

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        try:
            with self._path(key).open("rb", buffering=0) as file:
                file.seek(start)
                return _all_of(file.fileno(), os.fstat(file.fileno()).st_size - start if length is None else length)
        except FileNotFoundError:
            raise self._missing(key) from None
        except OSError as error:
            raise self._explained(error, f"{key} cannot be read") from error

    def size(self, key: str) -> int:
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError:
            raise self._missing(key) from None
        except OSError as error:
            raise self._explained(error, f"{key} cannot be found") from error

    def list(self, prefix: str) -> Iterator[Entry]:
        try:
            yield from self._entries(prefix)
        except OSError as error:
            raise self._explained(error, "it cannot be listed") from error

    def delete(self, keys: Iterable[str]) -> None:
        try:
            for key in keys:
                self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise self._explained(error, f"{key} cannot be deleted") from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else who asks for it here, in whatever thread or process, is inside meanwhile. Raises OSError."""
        self._require_there()
        fd = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _make(self, temporary: Path, path: Path) -> None:
        """Raises FileExistsError, OSError."""
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with self.alone():
                if path.exists():
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
                temporary.replace(path)

    def _entries(self, prefix: str) -> Iterator[Entry]:
        there = self._require_there()
        found = []
        first = self._folder / prefix.rpartition("/")[0]
        for folder, _, names in os.walk(first, onerror=_raise) if first.is_dir() else ():
            for name in names:
                path = Path(folder, name)
                key = path.relative_to(self._folder).as_posix()
                if not key.startswith(prefix) or name.startswith(_TEMPORARY):
                    continue
                # It may have gone since its folder was read.
                with suppress(FileNotFoundError):
                    about = path.stat()
                    found.append(Entry(key, about.st_size, about.st_mtime))
        if self._require_there() != there:
            raise FileNotFoundError(errno.ENOENT, "another directory is there now", str(self._folder))
        yield from sorted(found, key=lambda entry: entry.key)

    def _path(self, key: str) -> Path:
        return self._folder / checked(key)

    def _missing(self, key: str) -> StoreError:
        """An object that is not there is one thing, a disk that was taken out another."""
        try:
            self._require_there()
        except OSError as error:
            return self._explained(error, f"{key} cannot be found")
        return NotThere(self.name, key)

    def _require_there(self) -> tuple[int, int]:
        """Which directory that is: not the same once its disk is mounted, or taken out. Raises FileNotFoundError."""
        about = self._folder.stat()
        return about.st_dev, about.st_ino

    def _make_room(self, folder: Path) -> None:
        """The folder of an object, durably, but never the store's own: that would lie beside where its disk belongs."""
        self._require_there()
        missing = [each for each in (folder, *folder.parents) if each.is_relative_to(self._folder)]
        for each in reversed(missing):
            if not each.is_dir():
                each.mkdir(exist_ok=True)
                sync_folder(each.parent)

    def _buffer(self) -> mmap.mmap:
        """One for each thread, page-aligned as writes past the page cache need it."""
        if not hasattr(self._local, "buffer"):
            self._local.buffer = mmap.mmap(-1, STEP)
        buffer: mmap.mmap = self._local.buffer
        return buffer

    def _explained(self, error: OSError, what: str) -> StoreError:
        message = f"{self.name}: {what}: {error.strerror or error}."
        if error.errno in _FULL:
            return Full(message, "Make room, or go on with another disk.")
        if error.errno in _DENIED:
            return Denied(message, "Check who owns the directory, and that it is not mounted read-only.")
        return Unavailable(message, "Check that the disk is there and mounted, and the kernel log for errors of it.")


def _all_of(fd: int, length: int) -> bytes:
    found = os.read(fd, length)
    while len(found) < length and (piece := os.read(fd, length - len(found))):
        found += piece
    return found


def _raise(error: OSError) -> None:
    raise error
