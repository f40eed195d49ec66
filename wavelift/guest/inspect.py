"""Finding the installed system on a guest's disks, and mounting it inside the appliance."""

import re
from collections.abc import Sequence

from wavelift.guest.appliance import Appliance
from wavelift.guest.boot.fstab import mount_points
from wavelift.guest.errors import NoOperatingSystem, UnsupportedGuest
from wavelift.guest.facts import Devices, FileSystem, Layout, Place

_PLACE = re.compile(r"^/dev/sd([a-z])(\d*)$")
_ROOT_TYPES = ("ext2", "ext3", "ext4", "xfs", "btrfs")
_REFUSED = {
    "LVM2_member": "LVM",
    "crypto_LUKS": "an encrypted volume",
    "linux_raid_member": "software RAID",
    "zfs_member": "ZFS",
    "ntfs": "Windows (NTFS)",
    "BitLocker": "Windows (BitLocker)",
}
# What must be mounted to see kernels and to write next to them.
_SYSTEM_POINTS = ("/", "/boot", "/usr", "/var", "/etc")


def file_systems(appliance: Appliance) -> list[FileSystem]:
    """What the partitions, and disks without partitions, hold."""
    handle = appliance.handle
    partitions: Sequence[str] = handle.list_partitions()
    whole = [disk for disk in handle.list_devices() if not any(name.startswith(disk) for name in partitions)]
    found = []
    for device in [*whole, *partitions]:
        facts = handle.blkid(device)
        found.append(FileSystem(device, facts.get("TYPE", ""), facts.get("UUID", ""), _place(device)))
    return found


def find_system(appliance: Appliance) -> Layout:
    """The one Linux system on the disks; refuses none, several, and kinds that are not handled."""
    present = file_systems(appliance)
    roots = [item for item in present if item.kind in _ROOT_TYPES and _is_root(appliance, item)]
    if not roots:
        refused = sorted({_REFUSED[item.kind] for item in present if item.kind in _REFUSED})
        if refused:
            raise UnsupportedGuest(
                f"no system on a plain partition, but {', '.join(refused)}, which is not handled so far",
                "choose another migration route for this host; its replica is unharmed",
            )
        kinds = ", ".join(f"{item.device}: {item.kind or 'nothing known'}" for item in present) or "none"
        raise NoOperatingSystem(
            f"no installed system on the disks (file systems: {kinds})",
            "give the boot disk, and give it first; if it is there, check that its replica was verified",
        )
    if len(roots) > 1:
        raise UnsupportedGuest(
            f"several systems: {', '.join(item.device for item in roots)}",
            "keep one system per host; leave the other disks out",
        )
    root = roots[0]
    if root.place is not None and root.place[0] != 0:
        raise UnsupportedGuest(
            f"the system is on disk number {root.place[0] + 1}", "give the boot disk first, then the others"
        )
    return _layout(appliance, root, present)


def mount(appliance: Appliance, layout: Layout, *, writable: bool) -> None:
    """Mount the system part of the guest, the shortest paths first."""
    for point in sorted(layout.mounts, key=len):
        appliance.mount(layout.mounts[point].device, point, writable=writable)


def _place(device: str) -> Place | None:
    """Number of the disk from 0, number of the partition (0: the whole disk)."""
    found = _PLACE.match(device)
    return (ord(found[1]) - ord("a"), int(found[2] or 0)) if found else None


def _is_root(appliance: Appliance, item: FileSystem) -> bool:
    appliance.mount(item.device, "/", writable=False)
    try:
        return appliance.is_file("/etc/fstab") and bool(appliance.handle.is_dir("/etc", followsymlinks=True))
    finally:
        appliance.umount_all()


def _layout(appliance: Appliance, root: FileSystem, present: list[FileSystem]) -> Layout:
    devices = Devices({item.place: item.uuid for item in present if item.uuid and item.place is not None})
    appliance.mount(root.device, "/", writable=False)
    fstab = (appliance.read("/etc/fstab") or b"").decode("utf-8", "surrogateescape")
    appliance.umount_all()
    mounts = {"/": root}
    for point, device in mount_points(fstab).items():
        if point not in _SYSTEM_POINTS or point == "/":
            continue
        item = _named(device, present, devices)
        if item is None:
            raise UnsupportedGuest(
                f"fstab mounts {device} on {point}, and no given disk has it",
                "give all disks of the system; LVM and by-id names are not handled so far",
            )
        mounts[point] = item
    return Layout(root, mounts, devices)


def _named(device: str, present: list[FileSystem], devices: Devices) -> FileSystem | None:
    wanted = device.removeprefix("UUID=").strip('"') if device.startswith("UUID=") else None
    for item in present:
        if (wanted and item.uuid == wanted) or (wanted is None and devices.locate(device) == item.place):
            return item
    return None
