"""Raw disk images in regular files. Changes are found by scanning: all is dirty.

Whether a file is raw is for the caller to know: whatever it begins with is the disk's own first sector.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from wavelift.blocks.digest import SECTOR
from wavelift.blocks.errors import SourceError
from wavelift.sources.base import Consistency, Extent
from wavelift.sources.in_use import writer


class ImageSource:
    kind = "image"

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, token: str | None = None) -> ImagePointInTime:
        """Raises `SourceError`: missing, no regular file, not a multiple of 512 bytes."""
        try:
            return ImagePointInTime(self.path)
        except OSError as error:
            raise SourceError(
                f"The image {self.path} cannot be opened: {error.strerror}.", "Check the path and its rights."
            ) from None


class ImagePointInTime:
    """The caller sees to it that nothing writes meanwhile; `token` changes when something did. Who is known to be able
    to write is named in `notes`."""

    tracked = False

    def __init__(self, path: Path) -> None:
        self._path = path
        # Without O_NONBLOCK the open of a pipe would wait for its writer.
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            info = os.fstat(self._fd)
            self.size = info.st_size
            self._check(info.st_mode)
        except BaseException:
            os.close(self._fd)
            raise
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        self.notes: list[str] = []
        self._moving = False
        if self.consistency is Consistency.MOVING:
            self.notes.append(f"{path} is in use by {writer(self._fd, path)}: it may change while it is read")

    @property
    def consistency(self) -> Consistency:
        """Moving once anybody was found who may write."""
        self._moving = self._moving or writer(self._fd, self._path) is not None
        return Consistency.MOVING if self._moving else Consistency.OFFLINE

    @property
    def token(self) -> str:
        info = os.fstat(self._fd)
        # The time of writing can be set back, that of the last change to the inode can not.
        return f"{info.st_dev}:{info.st_ino}:{self.size}:{info.st_mtime_ns}:{info.st_ctime_ns}"

    def extents(self) -> Iterator[Extent]:
        at = 0
        while at < self.size:
            data = self._seek(at, os.SEEK_DATA)
            if data > at:
                yield Extent(at, data - at, dirty=True, zero=True)
            if data >= self.size:
                return
            hole = self._seek(data, os.SEEK_HOLE)
            yield Extent(data, hole - data, dirty=True, zero=False)
            at = hole

    def readinto(self, offset: int, view: memoryview) -> None:
        got = 0
        while got < len(view):
            count = os.preadv(self._fd, [view[got:]], offset + got)
            if count == 0:
                raise SourceError(
                    f"{self._path} ends at {offset + got}, before its size of {self.size}.",
                    "Something shortened it meanwhile; start again.",
                )
            got += count

    def drop_cache(self, offset: int, length: int) -> None:
        # Of a page that is covered in part, nothing is dropped.
        os.posix_fadvise(self._fd, offset, -(-length // mmap.PAGESIZE) * mmap.PAGESIZE, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        os.close(self._fd)

    def _seek(self, offset: int, whence: int) -> int:
        try:
            return min(self.size, os.lseek(self._fd, offset, whence))
        except OSError as error:
            if error.errno == errno.ENXIO:
                return self.size
            raise

    def _check(self, mode: int) -> None:
        if not stat.S_ISREG(mode):
            raise SourceError(f"{self._path} is no regular file.", "Name a disk image.", code="unsupported_source")
        if self.size == 0 or self.size % SECTOR:
            raise SourceError(
                f"{self._path} has {self.size} bytes, not a positive multiple of {SECTOR}.",
                "Check that it is a whole disk.",
            )
