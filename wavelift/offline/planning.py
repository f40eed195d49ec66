"""Which disks take how much of what is to be copied, before anything is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wavelift.stores.offline_disk import OfflineDisk


@dataclass(frozen=True)
class Share:
    """Of one disk, in bytes: the packs it takes, and what it has room for."""

    label: str
    takes: int
    room: int


@dataclass(frozen=True)
class Plan:
    """`lacking` bytes find no room: 0 when all fits."""

    shares: tuple[Share, ...]
    lacking: int


def plan(bytes_needed: int, disks: Sequence[OfflineDisk], *, largest: int = 0, on_each: int = 0) -> Plan:
    """For packs of so many bytes together, in the order in which they are filled, and `on_each` of what goes on every
    disk. Less than the `largest` pack may stay free on a disk that is left for the next. Raises OSError."""
    shares = []
    left = bytes_needed
    for number, disk in enumerate(disks):
        # What every disk takes first comes out of what packs leave free.
        reserve = disk.free - disk.room
        room = max(0, disk.room - max(0, on_each - reserve))
        takes = min(left, room if left <= room and number == len(disks) - 1 else max(0, room - largest))
        shares.append(Share(disk.label.label, takes, room))
        left -= takes
    return Plan(tuple(shares), left + max(0, on_each - min(disk.free for disk in disks)))
