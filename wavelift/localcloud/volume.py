"""Where the large files of a state folder live, so that copies of them share unchanged data.

A file system with reflinks (xfs, btrfs) is used as it is. In a new state folder on any other (ext4) the cloud makes
one of its own: an xfs in a sparse file, mounted through a loop device. That needs root; without it, copies are sparse
copies of the data. A state folder that has its files in the old place keeps them there.
"""

import ctypes
import errno
import fcntl
import logging
import os
import re
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOG = logging.getLogger(__name__)

FOLDERS = ("disks", "snapshots", "oss")
FICLONE = 0x40049409
# Something that was killed may hold a file for a moment after it is gone from the table of processes.
BUSY_SECONDS = 5.0

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LO_FLAGS_AUTOCLEAR = 4
_LO_FLAGS_DIRECT_IO = 16
_MS_NOATIME = 0x400
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


class VolumeLost(OSError):
    """The state folder's disks are in a volume that cannot be mounted."""


class Volume:
    def __init__(self, state: Path) -> None:
        self._state = state.resolve()
        self._image = self._state / "volume.img"
        self.folder = self._state / "volume"

    def open(self) -> None:
        """Afterwards the FOLDERS of the state folder exist. What an earlier cloud left mounted is taken over."""
        reason = "its files are in the old place"
        places = [self._state / name for name in FOLDERS]
        try:
            if not any(os.path.lexists(place) for place in (*places, self._image)) and not shares(self._state):
                self._make()
            if self._image.exists() or any(place.is_symlink() for place in places):
                self._mount()
                self._lay_out()
        except (OSError, subprocess.SubprocessError) as error:
            if any(place.is_symlink() for place in places):
                raise VolumeLost(f"{self._image} holds this cloud's disks and cannot be mounted: {error}") from error
            reason = f"a volume could not be made in it ({error})"
            self._discard()
        for place in places:
            place.mkdir(exist_ok=True)
        if not shares(places[0]):
            LOG.warning(
                "SNAPSHOTS WILL COPY: the file system of %s shares no data between files, and %s."
                " Put the state folder on xfs or btrfs, or begin a new one as root.",
                self._state,
                reason,
            )

    def close(self) -> None:
        """Harmless when nothing is mounted."""
        if self._device() is None:
            return
        deadline = time.monotonic() + BUSY_SECONDS
        while (code := _call("umount2", str(self.folder), 0)) == errno.EBUSY and time.monotonic() < deadline:
            time.sleep(0.02)
        if code == errno.EBUSY:
            LOG.warning("%s is in use by another process: it is gone from the tree, and ends with its use", self.folder)
            code = _call("umount2", str(self.folder), _MNT_DETACH)
        if code:
            raise OSError(code, os.strerror(code), str(self.folder))

    def _make(self) -> None:
        free = os.statvfs(self._state)
        partial = self._image.with_suffix(".partial")
        try:
            with partial.open("wb") as file:
                os.truncate(file.fileno(), free.f_bavail * free.f_frsize)
            command = ["mkfs.xfs", "-q", "-f", "-m", "reflink=1", "-l", "size=64m", str(partial)]
            subprocess.run(command, check=True, capture_output=True)
            partial.rename(self._image)
        finally:
            partial.unlink(missing_ok=True)

    def _mount(self) -> None:
        mounted = self._device()
        if mounted is not None:
            if not _backed_by(mounted, self._image):
                raise OSError(errno.EBUSY, f"{mounted} is mounted there", str(self.folder))
            return
        self.folder.mkdir(exist_ok=True)
        with _loop_device(self._image) as device:
            if code := _call("mount", device, str(self.folder), "xfs", _MS_NOATIME, "discard"):
                raise OSError(code, os.strerror(code), str(self.folder))

    def _lay_out(self) -> None:
        for name in FOLDERS:
            (self.folder / name).mkdir(exist_ok=True)
            place = self._state / name
            if not os.path.lexists(place):
                place.symlink_to(Path(self.folder.name) / name)

    def _discard(self) -> None:
        self.close()
        self._image.unlink(missing_ok=True)
        if self.folder.exists():
            self.folder.rmdir()

    def _device(self) -> str | None:
        """What is mounted on the folder."""
        found = None
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            where, _, what = line.partition(" - ")
            if _unescape(where.split()[4]) == str(self.folder):
                found = _unescape(what.split()[1])
        return found


def shares(folder: Path) -> bool:
    """Can two files in this folder share their data?"""
    with tempfile.TemporaryFile(dir=folder) as one, tempfile.TemporaryFile(dir=folder) as other:
        one.write(bytes(4096))
        one.flush()
        try:
            fcntl.ioctl(other.fileno(), FICLONE, one.fileno())
        except OSError:
            return False
    return True


@contextmanager
def _loop_device(image: Path) -> Iterator[str]:
    """One that shows the image. It ends by itself with its last user, also when this process is killed right now."""
    for known in Path("/sys/block").glob("loop*/loop/backing_file"):
        # Two devices of one image would be two file systems writing to it.
        device = f"/dev/{known.parts[3]}"
        if _backed_by(device, image):
            descriptor = os.open(device, os.O_RDWR)
            try:
                if _backed_by(device, image):
                    yield device
                    return
            finally:
                os.close(descriptor)
    with image.open("r+b") as file, Path("/dev/loop-control").open("rb") as control:
        while True:
            device = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            descriptor = os.open(device, os.O_RDWR)
            try:
                try:
                    fcntl.ioctl(descriptor, _LOOP_CONFIGURE, _loop_configuration(file.fileno()))
                except OSError as error:
                    if error.errno != errno.EBUSY:  # somebody else took it in between
                        raise
                    continue
                yield device
                return
            finally:
                os.close(descriptor)


def _loop_configuration(descriptor: int) -> bytes:
    """struct loop_config of linux/loop.h: file, block size, loop_info64, reserved."""
    flags = _LO_FLAGS_AUTOCLEAR | _LO_FLAGS_DIRECT_IO
    info = struct.pack("=5Q4I64s64s32s2Q", *[0] * 5, 0, 0, 0, flags, b"", b"", b"", 0, 0)
    return struct.pack("=2I", descriptor, 0) + info + bytes(64)


def _backed_by(device: str, image: Path) -> bool:
    try:
        shown = Path("/sys/block", Path(device).name, "loop/backing_file").read_text().rstrip("\n")
        return Path(shown).samefile(image)
    except OSError:  # it shows nothing (any more)
        return False


def _call(name: str, *arguments: str | int) -> int:
    """A system call; returns the error number or 0."""
    encoded = [os.fsencode(each) if isinstance(each, str) else each for each in arguments]
    return ctypes.get_errno() if getattr(_libc, name)(*encoded) else 0


def _unescape(text: str) -> str:
    """Spaces and the like are written in octal in the table of mounts."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), text)
