"""On request, the last partition of the boot disk and what it holds grow to the disk's end.

What is grown is a file system, or an LVM volume group and, if it is in that, the root. Nothing ever shrinks, and
nothing moves: where the last partition is something else (swap, most often), that is the reason why nothing grows.
The journal of a preparation does not take this back; a clone does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wavelift.guest.appliance import Appliance
from wavelift.guest.errors import PostconditionFailed
from wavelift.guest.evidence import REMEDY, Check
from wavelift.guest.facts import Layout

DISK = "/dev/sda"
_MIB = 1024 * 1024
# The backup GPT takes less than this.
_END = _MIB
_MBR_SECTORS = 2**32
_EXT = ("ext2", "ext3", "ext4")
FILE_SYSTEMS = (*_EXT, "xfs", "btrfs")
LVM = "LVM2_member"


@dataclass(frozen=True)
class Partition:
    """`first` and `last` are sectors, `kind` is what blkid calls its content, empty for nothing."""

    number: int
    first: int
    last: int
    kind: str
    extended: bool = False


@dataclass(frozen=True)
class Table:
    """A disk of `sectors` with its partitions. `scheme`: gpt or msdos."""

    scheme: str
    sector: int
    sectors: int
    partitions: tuple[Partition, ...]


@dataclass(frozen=True)
class Growth:
    """New last sectors by number, in the order in which they are set: an extended partition before what is in it.
    None are set where the partition fills the disk already, and what it holds may still be smaller."""

    ends: tuple[tuple[int, int], ...]
    partition: int
    kind: str


def plan_growth(table: Table) -> Growth | str:
    """What grows, or why nothing can."""
    if not table.partitions:
        return "the boot disk has no partition"
    inner = [each for each in table.partitions if not each.extended]
    last = max(inner, key=lambda each: each.last, default=None)
    container = next((each for each in table.partitions if each.extended), None)
    if last is None or (container and container.first > last.last):
        return "the last partition of the boot disk is an extended one with nothing in it"
    where = f"the last partition of the boot disk, number {last.number},"
    if last.kind == "swap":
        return f"{where} is swap space, and what is before it cannot grow"
    if last.kind not in (*FILE_SYSTEMS, LVM):
        return f"{where} holds {last.kind or 'nothing'}, which is not grown"
    limit = min(table.sectors, _MBR_SECTORS) if table.scheme == "msdos" else table.sectors
    step = _MIB // table.sector
    # On an MBR disk this room is left as well: nobody misses it.
    end = (limit - _END // table.sector) // step * step - 1
    inside = container is not None and container.first <= last.first <= container.last
    grown = ([container.number] if container and inside and container.last < end else []) + [last.number]
    ends = tuple((number, end) for number in grown) if end - last.last >= step else ()
    return Growth(ends, last.number, last.kind)


def grow(appliance: Appliance, layout: Layout) -> Check | str:
    """Grow the boot disk's last partition; nothing of the guest may be mounted. What was done, or why nothing was.

    A second time, partitions stay, and what they hold is told to fill them again.
    """
    handle = appliance.handle
    table = read_table(handle)
    growth = plan_growth(table)
    if isinstance(growth, str):
        return growth
    before = handle.blockdev_getsize64(f"{DISK}{growth.partition}")
    # While something on them is open, the appliance's kernel does not take new sizes.
    groups: list[str] = handle.vgs()
    if groups:
        handle.vg_activate(False, groups)
    for number, end in growth.ends:
        handle.part_resize(DISK, number, end)
    if groups:
        handle.vg_activate(True, groups)
    what = _grow_content(handle, layout, growth)
    after = handle.blockdev_getsize64(f"{DISK}{growth.partition}")
    ends = {each.number: each.last for each in read_table(handle).partitions}
    wrong = [number for number, end in growth.ends if ends[number] != end]
    if wrong or after < before:
        raise PostconditionFailed(f"partition {growth.partition} did not grow to the disk's end", REMEDY)
    sizes = f"{before // _MIB} MiB, now {after // _MIB} MiB" if growth.ends else f"{after // _MIB} MiB as before"
    return Check("last partition grown", f"partition {growth.partition}: {sizes}; {what}")


def read_table(handle: Any) -> Table:
    """The boot disk's, as the appliance has it."""
    sector = handle.blockdev_getss(DISK)
    sectors = handle.blockdev_getsize64(DISK) // sector
    present: list[str] = handle.list_partitions()
    if not any(name.startswith(DISK) for name in present):
        return Table("", sector, sectors, ())
    scheme = handle.part_get_parttype(DISK)
    found = []
    for each in handle.part_list(DISK):
        number = each["part_num"]
        extended = scheme == "msdos" and handle.part_get_mbr_part_type(DISK, number) == "extended"
        kind = "" if extended else handle.blkid(f"{DISK}{number}").get("TYPE", "")
        place = each["part_start"] // sector, each["part_end"] // sector
        found.append(Partition(number, *place, kind, extended))
    return Table(scheme, sector, sectors, tuple(found))


def _grow_content(handle: Any, layout: Layout, growth: Growth) -> str:
    device = f"{DISK}{growth.partition}"
    if growth.kind != LVM:
        _grow_file_system(handle, device, growth.kind)
        return growth.kind
    handle.pvresize(device)
    root = _device(layout.root.device)
    group = _group_of(handle, device)
    if group is None or root not in handle.lvs() or root.split("/")[2] != group:
        return f"{LVM}, whose new room is free" + (f" in {group}" if group else "")
    if _free(handle, group):
        handle.lvresize_free(root, 100)
    _grow_file_system(handle, root, layout.root.kind)
    return f"{root} ({layout.root.kind}) in it"


def _grow_file_system(handle: Any, device: str, kind: str) -> None:
    if kind in _EXT:
        handle.e2fsck(device, correct=True)
        handle.resize2fs(device)
        return
    handle.mount(device, "/")
    try:
        if kind == "xfs":
            handle.xfs_growfs("/", datasec=True)
        else:
            handle.btrfs_filesystem_resize("/")
    finally:
        handle.umount_all()


def _device(name: str) -> str:
    """Of `btrfsvol:/dev/group/volume/subvolume`, the device."""
    if not name.startswith("btrfsvol:"):
        return name
    parts: Sequence[str] = name.removeprefix("btrfsvol:").split("/")
    return "/".join(parts[:4])


def _group_of(handle: Any, physical: str) -> str | None:
    uuid = handle.pvuuid(physical).replace("-", "")
    groups: list[str] = handle.vgs()
    return next((name for name in groups if uuid in [each.replace("-", "") for each in handle.vgpvuuids(name)]), None)


def _free(handle: Any, group: str) -> bool:
    return any(each["vg_name"] == group and each["vg_free_count"] > 0 for each in handle.vgs_full())
