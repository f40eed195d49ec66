"""Disks and snapshots as sparse raw files.

A copy is made under a temporary name, made durable, then renamed: a file under its own name is whole. With reflinks
(see `volume`) a copy costs milliseconds and no space; without, it costs the allocated data, and a snapshot of a disk in
use holds up its machine and the reply for that long.
"""

import errno
import fcntl
import logging
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from wavelift.localcloud.volume import FICLONE

LOG = logging.getLogger(__name__)

CHUNK = 64 * 1024 * 1024
_NO_REFLINK = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS}


class DiskFiles:
    def __init__(self, state: Path) -> None:
        # Asked before the file of a disk or snapshot (by id) counts as written; it may raise what a full disk raises.
        self.obstacle: Callable[[str], None] | None = None
        self._disks = state / "disks"
        self._snapshots = state / "snapshots"
        for folder in (self._disks, self._snapshots):
            folder.mkdir(exist_ok=True)
            for left in folder.glob("*.partial"):
                left.unlink()

    def disk(self, identifier: str) -> Path:
        return self._disks / f"{identifier}.raw"

    def snapshot(self, identifier: str) -> Path:
        return self._snapshots / f"{identifier}.raw"

    def scratch(self, identifier: str) -> Path:
        """For what is on its way to a snapshot; gone at the next start. Settled, it is the snapshot of that id."""
        return self.snapshot(identifier).with_suffix(".partial")

    def can_hold(self, size: int) -> bool:
        """Does the filesystem take a file of this many bytes (sparse)?"""
        probe = self._disks / f"probe-{os.getpid()}-{size}.partial"
        try:
            with probe.open("wb") as file:
                os.truncate(file.fileno(), size)
        except OSError as error:
            if error.errno not in {errno.EFBIG, errno.EINVAL}:
                raise
            return False
        finally:
            probe.unlink(missing_ok=True)
        return True

    def create(self, target: Path, size: int, source: Path | None = None) -> None:
        """Make `target`, empty or with the content of `source`, grown to `size` bytes. Harmless twice."""
        self.fill(target, size, source)
        self.settle(target)

    def fill(self, target: Path, size: int, source: Path | None) -> None:
        """The first half of `create`: what is copied is fixed from here on, but not durable."""
        if target.exists():
            return
        partial = target.with_suffix(".partial")
        try:
            with partial.open("wb") as file:
                if source is not None:
                    with source.open("rb") as origin:
                        _copy(origin.fileno(), file.fileno())
                if file.seek(0, os.SEEK_END) < size:
                    os.truncate(file.fileno(), size)
        except BaseException:
            partial.unlink(missing_ok=True)  # a full disk gets back what the half copy took
            raise

    def settle(self, target: Path) -> None:
        """The second half: make it durable and give it its name."""
        if target.exists():
            return
        partial = target.with_suffix(".partial")
        try:
            if self.obstacle is not None:
                self.obstacle(target.stem)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        partial.rename(target)
        _sync_folder(target.parent)

    def grow(self, path: Path, size: int) -> None:
        """Make a file longer, not shorter, and durable at that. Harmless twice."""
        with path.open("r+b") as file:
            if file.seek(0, os.SEEK_END) < size:
                os.truncate(file.fileno(), size)
            os.fsync(file.fileno())

    def flush(self, path: Path) -> None:
        """What was written goes to the disk now, so that a copy made in a moment need not wait for it."""
        with path.open("rb") as file:
            os.fdatasync(file.fileno())

    def remove(self, path: Path) -> None:
        """Of a copy that failed half way nothing is left either."""
        path.unlink(missing_ok=True)
        path.with_suffix(".partial").unlink(missing_ok=True)

    def sweep(self, disks: Mapping[str, int], snapshots: Collection[str]) -> None:
        """Keep the files of these; a disk has its size in bytes again if a kill came while it was changed."""
        for folder, known in ((self._disks, disks), (self._snapshots, snapshots)):
            for file in folder.iterdir():
                if file.name.removesuffix(".raw") not in known:
                    LOG.info("%s belongs to nothing any more", file)
                    file.unlink()
        for identifier, size in disks.items():
            file = self.disk(identifier)
            if file.exists() and file.stat().st_size != size:
                os.truncate(file, size)


def _copy(source: int, target: int) -> None:
    try:
        fcntl.ioctl(target, FICLONE, source)
        return
    except OSError as error:
        if error.errno not in _NO_REFLINK:
            raise
    _copy_sparse(source, target)


def _copy_sparse(source: int, target: int) -> None:
    """Copy the data and leave the holes."""
    size = os.fstat(source).st_size
    os.truncate(target, size)
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        position = os.lseek(source, start, os.SEEK_HOLE)
        while start < position:
            done = os.copy_file_range(source, target, min(CHUNK, position - start), start, start)
            if done == 0:
                raise OSError(errno.EIO, "the disk's file became shorter while it was copied")
            start += done


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link(folder: Path, serial: str, disk: Path) -> None:
    """Show a disk in a device folder, as udev shows one by the serial of its virtio device."""
    place = folder / f"virtio-{serial}"
    with suppress(FileExistsError):
        place.symlink_to(disk)


def unlink(folder: Path, serial: str) -> None:
    (folder / f"virtio-{serial}").unlink(missing_ok=True)
