"""What LVM reports, and which of its commands a snapshot takes. Pure: nothing is run here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from wavelift.blocks.errors import SourceError

TAG = "wavelift"
_FIELDS = "vg_uuid,lv_uuid,vg_name,lv_name,lv_attr,lv_size,origin,lv_tags,vg_free,vg_extent_size"
# Plain, origin of another snapshot, RAID, mirror, thin, cached: what can be the origin of a snapshot with a size.
_ORIGINS = "-orRmMVC"
# Of the volume's size. All that is written to the volume during a cycle must fit, in chunks of 4 KiB.
_WANTED, _LEAST = 0.20, 0.02

QUERY = ["lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", _FIELDS]


@dataclass(frozen=True)
class Volume:
    """A logical volume. Sizes in bytes; `free` and `extent` are its group's."""

    uuid: str
    group: str
    name: str
    attributes: str
    size: int
    origin: str
    tags: frozenset[str]
    free: int
    extent: int

    @property
    def full_name(self) -> str:
        return f"{self.group}/{self.name}"


def parse(report: str) -> list[Volume]:
    """The volumes of QUERY's answer. Raises `SourceError`."""
    try:
        rows = [row for part in json.loads(report)["report"] for row in part["lv"]]
        return [_volume(row) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"What lvs reports cannot be read: {error!r}.", "Check the version of lvm2.", code="lvm_failed"
        ) from None


def _volume(row: dict[str, str]) -> Volume:
    return Volume(
        # As device-mapper names it.
        uuid="LVM-" + (row["vg_uuid"] + row["lv_uuid"]).replace("-", ""),
        group=row["vg_name"],
        name=row["lv_name"],
        attributes=row["lv_attr"],
        size=int(row["lv_size"]),
        origin=row["origin"],
        tags=frozenset(row["lv_tags"].split(",")) - {""},
        free=int(row["vg_free"]),
        extent=int(row["vg_extent_size"]),
    )


def leftovers(volumes: Iterable[Volume], volume: Volume) -> list[Volume]:
    """Our snapshots of this volume: an agent that was killed left them."""
    return [
        found for found in volumes if TAG in found.tags and (found.group, found.origin) == (volume.group, volume.name)
    ]


def snapshot_size(volume: Volume) -> int | str:
    """Bytes for the snapshot, in whole extents: a fifth of the volume, or what is free; or why there can be none."""
    if volume.attributes[0] not in _ORIGINS:
        return f"{volume.full_name} is of a kind of which there are no snapshots (lv_attr {volume.attributes})"
    wanted = -(-int(volume.size * _WANTED) // volume.extent) * volume.extent
    least = -(-int(volume.size * _LEAST) // volume.extent) * volume.extent
    free = volume.free // volume.extent * volume.extent
    if free < max(least, volume.extent):
        return f"the volume group {volume.group} has {volume.free} bytes free, a snapshot takes at least {least}"
    return min(wanted, free)


def create(volume: Volume, name: str, size: int) -> list[str]:
    return [
        *("lvcreate", "--yes", "--snapshot", "--permission", "r", "--name", name, "--addtag", TAG),
        *("--size", f"{size}b", volume.full_name),
    ]


def remove(group: str, name: str) -> list[str]:
    """Refused by LVM while anyone has it open."""
    return ["lvremove", "--yes", f"{group}/{name}"]


def mapped(group: str, name: str) -> str:
    """The name under /dev/mapper."""
    return f"{group.replace('-', '--')}-{name.replace('-', '--')}"


@dataclass(frozen=True)
class SnapshotState:
    """`full`: it overflowed, and reads fail. `untouched`: nothing was written to the volume since it was taken."""

    full: bool
    untouched: bool


def state(status: str) -> SnapshotState:
    """Of `dmsetup status`: start, length, "snapshot", allocated/total sectors, sectors of metadata."""
    fields = status.split()
    if len(fields) < 4 or fields[2] != "snapshot":
        raise SourceError(f"What dmsetup reports is no snapshot: {status!r}.", code="lvm_failed")
    if "/" not in fields[3]:
        return SnapshotState(full=True, untouched=False)
    return SnapshotState(full=False, untouched=fields[3].partition("/")[0] == fields[4])
