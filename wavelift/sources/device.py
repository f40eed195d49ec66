"""Linux block devices as they are: whole disks, partitions, loop devices, logical volumes without a snapshot.

Read with O_DIRECT only: the page cache of a device knows nothing of what a file system on it writes past it, and
shows metadata that is not yet on the disk. Changes are found by scanning: all is dirty, and no holes are known.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import struct
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from wavelift.blocks.digest import SECTOR
from wavelift.blocks.errors import SourceError
from wavelift.sources.base import Consistency, Extent
from wavelift.sources.device_activity import Activity

_BLKGETSIZE64 = 0x80081272
_BLKSSZGET = 0x1268
_ALIGNED = 4096
_BUFFER = 1 << 20
_IN_USE = (
    "{path} is in use and read as it is: if it is written to meanwhile, the copy is of no single moment. "
    "Stop what writes to it for the last copy, or keep the data on a logical volume whose group has free space"
)


class DeviceSource:
    kind = "device"

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, token: str | None = None) -> DevicePointInTime:
        """Raises `SourceError`: missing, no block device, without medium, sectors that the target cannot have."""
        return DevicePointInTime(self.path)


class DevicePointInTime:
    """A device from its `open` on. That nothing wrote is not enforced but observed: see `consistency`.

    `token` names the state at the open: the running kernel, the device, and its counters of writes. A write by
    whatever path this kernel counts gives the next open another token, so that no copy resumes over other
    content; a write by another machine to a shared disk is not seen. While the device is unmounted it is
    claimed, and cannot be mounted before `close`.
    """

    tracked = False

    def __init__(self, path: Path, *notes: str) -> None:
        self._path = path
        self._fd, self._claimed = _open(path)
        self.notes = notes if self._claimed else (*notes, _IN_USE.format(path=path))
        try:
            # What was written through the page cache counts as a write now, not in the middle of the copy.
            os.fsync(self._fd)
            self._activity = Activity(os.fstat(self._fd).st_rdev)
            self.size = struct.unpack("Q", fcntl.ioctl(self._fd, _BLKGETSIZE64, bytes(8)))[0]
            self.token = f"device:{self._activity.identity()}:{self.size}"
            self._buffers = threading.local()
            self._check()
            # Of no use where the kernel does not count: then every moment is another one.
            self._began = self._activity.written() if self._counted() else f"uncounted-{uuid.uuid4()}"
        except OSError as error:
            os.close(self._fd)
            raise _unusable(path, error) from None
        except BaseException:
            os.close(self._fd)
            raise
        self.token += f":{self._began}"

    @property
    def consistency(self) -> Consistency:
        """What held from the open until now: ask after the last read.

        OFFLINE when nothing could have it mounted and nothing was written, CRASH when it was in use and yet
        nothing was written, MOVING otherwise.
        """
        if self._activity.busy() or self._activity.written() != self._began:
            return Consistency.MOVING
        return Consistency.OFFLINE if self._claimed else Consistency.CRASH

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size, dirty=True, zero=False)

    def readinto(self, offset: int, view: memoryview) -> None:
        buffer = self._buffer()
        got = 0
        while got < len(view):
            start = (offset + got) // _ALIGNED * _ALIGNED
            skip = offset + got - start
            wanted = min(_BUFFER, -(-(skip + len(view) - got) // _ALIGNED) * _ALIGNED)
            try:
                count = os.preadv(self._fd, [memoryview(buffer)[:wanted]], start) - skip
            except OSError as error:
                raise SourceError(
                    f"Reading {self._path} at byte {start} failed: {error.strerror}.",
                    "Look at the kernel's log for the device's errors.",
                ) from None
            if count <= 0:
                raise SourceError(
                    f"{self._path} ends at {start + skip + count}, before its size of {self.size}.",
                    "Something shortened it meanwhile; start again.",
                )
            part = min(count, len(view) - got)
            view[got : got + part] = memoryview(buffer)[skip : skip + part]
            got += part

    def close(self) -> None:
        os.close(self._fd)

    def _buffer(self) -> mmap.mmap:
        """One aligned buffer per thread, as O_DIRECT asks for."""
        found: mmap.mmap | None = getattr(self._buffers, "buffer", None)
        if found is None:
            found = self._buffers.buffer = mmap.mmap(-1, _BUFFER)
        return found

    def _counted(self) -> bool:
        """Found out by a read: device-mapper counts whatever queue/iostats says, other drivers heed it."""
        before = self._activity.sectors_read()
        self.readinto(0, memoryview(bytearray(SECTOR)))
        return self._activity.sectors_read() != before

    def _check(self) -> None:
        if self.size == 0:
            raise SourceError(f"{self._path} has no medium: its size is 0.", "Check which device it is.")
        sector = sector_size(self._fd)
        if sector == SECTOR:
            return
        start = bytearray(2 * _ALIGNED)
        self.readinto(0, memoryview(start)[: min(self.size, len(start))])
        if start[510:512] == b"\x55\xaa" or start[sector : sector + 8] == b"EFI PART":
            raise SourceError(
                f"{self._path} has a partition table in sectors of {sector} bytes; the target's sectors have {SECTOR}, "
                "and no partition would be found there.",
                "Offer its partitions instead, each as a disk of its own.",
                code="unsupported_source",
            )


def sector_size(fd: int) -> int:
    """Of an open block device, in bytes. Raises OSError."""
    found: int = struct.unpack("i", fcntl.ioctl(fd, _BLKSSZGET, bytes(4)))[0]
    return found


def _open(path: Path) -> tuple[int, bool]:
    """(descriptor, claimed): claimed when nothing on this machine has it mounted or is built on it."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT
    try:
        if not stat.S_ISBLK(path.stat().st_mode):
            raise SourceError(f"{path} is no block device.", "Name a disk, a partition or a logical volume.")
        try:
            return os.open(path, flags | os.O_EXCL), True
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return os.open(path, flags), False
    except OSError as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: OSError) -> SourceError:
    return SourceError(
        f"The device {path} cannot be used: {error.strerror}.", "Check the path, and that the agent runs as root."
    )
