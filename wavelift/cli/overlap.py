"""Whether two paths lead to the same bytes: through links, partitions, loop devices and what is stacked on devices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wavelift.sources.in_use import Identity, backing, identity

_BLOCK = Path("/sys/dev/block")


def overlap(left: Path, right: Path) -> bool:
    """Whether writing one may change the other: one is the other, or lies on it. Raises OSError."""
    one, other = identity(left), identity(right)
    return one in _below(other) or other in _below(one)


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
    yield from backing(folder / "loop/backing_file")


def _device(folder: Path) -> Identity:
    major, _, minor = (folder / "dev").read_text().strip().partition(":")
    return "device", int(major), int(minor)
