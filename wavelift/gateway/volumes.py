"""The volumes attached to this gateway, found by serial in the device folder, never by device letter."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from wavelift.blocks.errors import VolumeTooSmall
from wavelift.blocks.volume import VolumeWriter, open_direct
from wavelift.gateway.owners import Owners
from wavelift.gateway.readbacks import ReadBacks
from wavelift.gateway.turns import Turns
from wavelift.service.errors import NotFound

PREFIX = "virtio-"
# Links to the partitions of a volume stand beside the volume's own.
_PARTITION = re.compile(r"-part\d+$")
_GONE = (errno.ENXIO, errno.ENODEV, errno.EIO, errno.ENOENT)


class VolumeNotAttached(NotFound):
    default_code = "volume_not_attached"


@dataclass(frozen=True)
class Volume:
    """An attached volume; `size` in bytes."""

    id: str
    size: int
    path: Path


class Volumes:
    """The device folder, read anew each time: volumes come and go, and a restart may move them."""

    def __init__(self, folder: Path, owners: Path, readbacks: ReadBacks) -> None:
        """`owners` is where it is kept whose packs came last; `readbacks` drop those of a volume before it changes."""
        self._folder = folder
        self._readbacks = readbacks
        self.turns = Turns(Owners(owners))

    def all(self) -> list[Volume]:
        found = []
        for link in sorted(self._folder.glob(f"{PREFIX}*")):
            if _PARTITION.search(link.name):
                continue
            try:
                found.append(self._volume(f"d-{link.name.removeprefix(PREFIX)}", link))
            except OSError:
                # A link whose device has just gone; a later listing tells.
                continue
        return found

    def find(self, volume: str) -> Volume:
        """Raises `VolumeNotAttached`."""
        serial = volume.removeprefix("d-")
        # A serial names one link of this folder and can lead nowhere else.
        if serial and "/" not in serial and serial not in (".", "..") and not _PARTITION.search(serial):
            try:
                return self._volume(volume, self._link(volume))
            except OSError as error:
                if error.errno not in _GONE:
                    raise
        there = ", ".join(volume.id for volume in self.all()) or "none"
        raise VolumeNotAttached(
            f"Volume {volume} is not attached to this gateway; attached: {there}.",
            f"Attach it, then try again: it is looked for as {self._folder}/{PREFIX}{serial}.",
        )

    def holding(self, volume: str, disk: str, size: int) -> Volume:
        """The volume that has room for a disk of `size` bytes. Raises `VolumeNotAttached`, `VolumeTooSmall`."""
        found = self.find(volume)
        if found.size < size:
            raise VolumeTooSmall(disk, size, volume, found.size)
        return found

    def _link(self, volume: str) -> Path:
        return self._folder / f"{PREFIX}{volume.removeprefix('d-')}"

    def _volume(self, name: str, link: Path) -> Volume:
        path = link.resolve(strict=True)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return Volume(name, os.lseek(fd, 0, os.SEEK_END), path)
        finally:
            os.close(fd)

    @contextmanager
    def writing(self, volume: str) -> Iterator[VolumeWriter]:
        """Open for one pack; durable when the block ends well. Raises `VolumeNotAttached`, OSError.

        A path says nothing of a device: between its look-up and its opening, or until the end of the pack, it may
        come to lead to another volume. So what was opened is held against the link, before the first write too.
        """
        found = self.find(volume)
        try:
            with ExitStack() as stack:
                fd = os.open(found.path, os.O_RDWR | os.O_CLOEXEC)
                stack.callback(os.close, fd)
                direct = open_direct(found.path)
                if direct is not None:
                    stack.callback(os.close, direct)
                for opened in (fd,) if direct is None else (fd, direct):
                    self._require_linked(volume, opened)
                self._readbacks.drop(volume)
                yield VolumeWriter(found.id, found.size, fd, direct)
                os.fdatasync(fd)
                # What was written to a device that left meanwhile may be anywhere.
                self._require_linked(volume, fd)
        except OSError as error:
            if error.errno in _GONE and not found.path.exists():
                raise self._went(volume) from error
            raise

    def _require_linked(self, volume: str, fd: int) -> None:
        """Raises `VolumeNotAttached` unless the volume's link leads to the very file that was opened."""
        try:
            there = self._link(volume).stat()
        except FileNotFoundError:
            raise self._went(volume) from None
        if _identity(there) != _identity(os.fstat(fd)):
            raise self._went(volume)

    def _went(self, volume: str) -> VolumeNotAttached:
        return VolumeNotAttached(f"Volume {volume} was detached or moved while it was written.", "Attach it again.")


def _identity(info: os.stat_result) -> tuple[int, ...]:
    # Of a device, only its number counts: the node that leads to it may be made anew.
    return (info.st_rdev,) if stat.S_ISBLK(info.st_mode) else (info.st_dev, info.st_ino)
