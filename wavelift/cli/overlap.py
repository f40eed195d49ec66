"""Whether two paths lead to the same bytes: through links, partitions, loop devices and what is stacked on devices."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

_BLOCK = Path("/sys/dev/block")
_LOOPS = Path("/sys/block")

# ("file", device, inode) or ("device", major, minor).
Identity = tuple[str, int, int]


def identity(path: Path) -> Identity:
    """Raises OSError."""
    info = path.stat()
    if stat.S_ISBLK(info.st_mode):
        return "device", os.major(info.st_rdev), os.minor(info.st_rdev)
    return "file", info.st_dev, info.st_ino


def overlap(left: Path, right: Path) -> bool:
    """Whether writing one may change the other: one is the other, or lies on it. Raises OSError."""
    one, other = identity(left), identity(right)
    return one in _below(other) or other in _below(one)


def loops_on(path: Path) -> list[str]:
    """The loop devices that a regular file is behind. Raises OSError when the file is not there."""
    wanted = identity(path)
    return sorted(
        f"/dev/{name.parent.parent.name}" for name in _LOOPS.glob("loop*/loop/backing_file") if wanted in _backing(name)
    )


def _below(start: Identity) -> set[Identity]:
    """What something lies on, with itself: a partition's disk, a loop device's file, a logical volume's disks."""
    found: set[Identity] = set()
    open_ = [start]
    while open_:
        at = open_.pop()
        if at not in found:
            found.add(at)
            open_ += _next_below(at)
    return found


def _next_below(at: Identity) -> Iterator[Identity]:
    kind, major, minor = at
    folder = _BLOCK / f"{major}:{minor}"
    if kind != "device" or not folder.exists():
        return
    folder = folder.resolve()
    if (folder / "partition").exists():
        yield _device(folder.parent)
    for slave in folder.glob("slaves/*"):
        yield _device(slave.resolve())
    yield from _backing(folder / "loop/backing_file")


def _device(folder: Path) -> Identity:
    major, _, minor = (folder / "dev").read_text().strip().partition(":")
    return "device", int(major), int(minor)


def _backing(name: Path) -> list[Identity]:
    try:
        return [identity(Path(name.read_text().removesuffix("\n")))]
    except OSError:
        # No loop device, or one whose file is deleted: then no path leads there.
        return []
