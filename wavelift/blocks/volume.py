"""Writing a volume, a block device or a file: past the page cache, zeroes as holes, pack by pack."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from wavelift.blocks.digest import blocks_of, digests
from wavelift.blocks.errors import CorruptPack, VolumeTooSmall
from wavelift.blocks.pack import Codec, PackReader

ALIGNED = 4096
_FALLOC_KEEP_SIZE = 1
_FALLOC_PUNCH_HOLE = 2
_ZEROES = bytes(1 << 20)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


@dataclass(frozen=True)
class Written:
    """What a pack brought: blocks, and bytes of disk; `missing` are the (offset, length) of copy records whose blocks
    were not where they say, so that nothing was written for them."""

    blocks: int
    bytes: int
    missing: list[tuple[int, int]]


def open_direct(path: Path) -> int | None:
    """A descriptor that writes past the page cache; None where the file system has no such thing."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None


def write_past_cache(path: Path, data: memoryview, buffer: mmap.mmap) -> None:
    """A file anew, durable on return, in pieces of the page-aligned buffer. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    direct = open_direct(path)
    try:
        for start in range(0, len(data), len(buffer)):
            part = data[start : start + len(buffer)]
            view = memoryview(buffer)[: -(-len(part) // ALIGNED) * ALIGNED]
            view[: len(part)] = part
            at = start
            while view:
                count = os.pwrite(fd if direct is None else direct, view, at)
                view, at = view[count:], at + count
        os.ftruncate(fd, len(data))
        os.fsync(fd)
        # Where it went through the cache after all, a read-back must not find it there.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        if direct is not None:
            os.close(direct)
        os.close(fd)


class VolumeWriter:
    """Writes past the page cache where the device takes it: filling fresh cache pages costs more than the
    disk does, and a read-back must not find them anyway."""

    def __init__(self, volume: str, size: int, fd: int, direct: int | None) -> None:
        """`size` of the volume in bytes; the descriptors stay the caller's."""
        self._volume = volume
        self._size = size
        self._fd = fd
        self._direct = direct

    def require(self, disk: str, size: int) -> None:
        """Raises `VolumeTooSmall`."""
        if size > self._size:
            raise VolumeTooSmall(disk, size, self._volume, self._size)

    def take(self, reader: PackReader, turn: Callable[[], AbstractContextManager[None]] = nullcontext) -> Written:
        """Write what a pack says, each record within a `turn`, which may raise. Refused midway, only proven blocks
        were written. Raises `PackError`, `VolumeTooSmall`, OSError."""
        self.require(reader.header.disks[0].disk, reader.header.disks[0].size)
        blocks = 0
        missing: list[tuple[int, int]] = []
        for record, data in reader.records():
            with turn():
                if record.codec is Codec.ZERO:
                    self.zero(record.offset, record.length)
                elif record.origin is not None and not self._holds(record.origin, record.digests, data):
                    missing.append((record.offset, record.length))
                    continue
                else:
                    self.write(record.offset, data)
            blocks += blocks_of(record.length)
        if reader.totals is None:
            raise CorruptPack("it has no end record")
        left = sum(length for _, length in missing)
        return Written(blocks, reader.totals.bytes - left, missing)

    def _holds(self, origin: tuple[int, int], expected: bytes, view: memoryview) -> bool:
        """Fill the view from the volume; whether it is what the digests say. What changes meanwhile is not."""
        disk, offset = origin
        if disk != 0:
            return False
        aligned = offset % ALIGNED == 0 and len(view) % ALIGNED == 0
        got = 0
        while got < len(view):
            direct = self._direct if aligned else None
            try:
                count = os.preadv(self._fd if direct is None else direct, [view[got:]], offset + got)
            except OSError as error:
                if direct is None or error.errno != errno.EINVAL:
                    raise
                self._direct = None
                continue
            if count == 0:
                return False
            got += count
        return digests(view) == expected

    def write(self, offset: int, data: memoryview) -> None:
        """The data's memory is page-aligned when it comes from a reader with an aligned scratch."""
        while data:
            aligned = offset % ALIGNED == 0 and len(data) % ALIGNED == 0
            direct = self._direct if aligned else None
            try:
                count = os.pwrite(self._fd if direct is None else direct, data, offset)
            except OSError as error:
                # Opened, but refused after all: memory or device want another alignment.
                if direct is None or error.errno != errno.EINVAL:
                    raise
                self._direct = None
                continue
            data, offset = data[count:], offset + count

    def zero(self, offset: int, length: int) -> None:
        """Zeroes by punching, which frees the space too; written out where the device cannot."""
        mode = _FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE
        if _libc.fallocate(self._fd, mode, offset, length) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV):
            raise OSError(number, os.strerror(number), self._volume)
        self.write_zeroes(offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        for at in range(offset, offset + length, len(_ZEROES)):
            self.write(at, memoryview(_ZEROES)[: min(len(_ZEROES), offset + length - at)])
