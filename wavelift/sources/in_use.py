"""Who may write to a file that is read: what the system tells of the locks and loop devices on it."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

_LOOPS = Path("/sys/block")
_LOCK = "hhqqi4x"
# Of QEMU's lock bytes (100 and a permission's number), held by who may write, and who may change the size.
_WRITE, _RESIZE = 101, 103
_SEES_NO_LOCKS = (errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)

# ("file", device, inode) or ("device", major, minor).
Identity = tuple[str, int, int]


def identity(path: Path) -> Identity:
    """Raises OSError."""
    info = path.stat()
    if stat.S_ISBLK(info.st_mode):
        return "device", os.major(info.st_rdev), os.minor(info.st_rdev)
    return "file", info.st_dev, info.st_ino


def backing(name: Path) -> list[Identity]:
    """What the attribute `backing_file` of a loop device names."""
    try:
        return [identity(Path(name.read_text().removesuffix("\n")))]
    except OSError:
        # No loop device, or one whose file is deleted: then no path leads there.
        return []


def loops_on(path: Path, *, writing: bool = False) -> list[str]:
    """The loop devices that a file or device is behind; with `writing`, those that can be written to. Raises OSError
    when it is not there."""
    wanted = identity(path)
    return sorted(
        f"/dev/{name.parent.parent.name}"
        for name in _LOOPS.glob("loop*/loop/backing_file")
        if wanted in backing(name) and not (writing and _read_only(name.parent.parent))
    )


def writer(fd: int, path: Path) -> str | None:
    """Who may write to the open file, of those that can be told: a running machine, a copy, a loop device."""
    loops = loops_on(path, writing=True)
    if loops:
        return ", ".join(loops)
    if any(_locked(fd, at) for at in (_WRITE, _RESIZE)):
        return "another program (a machine, or another copy)"
    return None


def _locked(fd: int, at: int) -> bool:
    asked = struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0)
    try:
        kind, *_ = struct.unpack(_LOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
    except OSError as error:
        if error.errno in _SEES_NO_LOCKS:
            return False
        raise
    return bool(kind != fcntl.F_UNLCK)


def _read_only(loop: Path) -> bool:
    try:
        return (loop / "ro").read_text().strip() == "1"
    except FileNotFoundError:
        # Detached just now.
        return True
