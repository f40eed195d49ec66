"""Where Windows lies on a guest's disks, and where what starts it does."""

from __future__ import annotations

from collections.abc import Sequence

from wavelift.guest.appliance import Appliance
from wavelift.guest.disks import Volume
from wavelift.guest.facts import Devices, FileSystem, Firmware, Layout
from wavelift.guest.windows.files import CONFIG, real
from wavelift.guest.windows.loader import PLACES

# A folder that is on every NTFS and that nothing here looks into: what starts Windows has no drive letter of its own.
_BOOT_POINT = "/System Volume Information"


def has_windows(appliance: Appliance, device: str) -> bool:
    return _there(appliance, device, (f"{CONFIG}/SYSTEM",))


def layout_of(appliance: Appliance, root: FileSystem, present: Sequence[Volume]) -> Layout:
    appliance.mount(root.device, "/", writable=False)
    point = real(appliance, _BOOT_POINT)
    can_mount = bool(appliance.handle.is_dir(point))
    appliance.umount_all()
    mounts = {"/": root}
    others = [volume.fs for volume in present if volume.fs.kind in ("ntfs", "vfat") and volume.fs != root]
    starts = next((fs for fs in others if _there(appliance, fs.device, PLACES)), None)
    if starts is not None and can_mount:
        mounts[point] = starts
    # An ESP on the disk of a machine that starts by BIOS holds no BCD of Windows.
    esps = [volume.fs for volume in present if volume.is_esp]
    devices = Devices({each.fs.place: each.fs.uuid for each in present if each.fs.uuid and each.fs.place is not None})
    return Layout(root, mounts, devices, Firmware.UEFI if starts in esps else Firmware.BIOS)


def _there(appliance: Appliance, device: str, paths: Sequence[str]) -> bool:
    appliance.mount(device, "/", writable=False)
    try:
        return any(appliance.is_file(real(appliance, path)) for path in paths)
    finally:
        appliance.umount_all()
