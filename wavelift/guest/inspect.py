"""Finding the installed system on a guest's disks, and mounting it inside the appliance."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wavelift.guest.appliance import Appliance
from wavelift.guest.disks import Volume, volumes
from wavelift.guest.errors import NoOperatingSystem, UnsupportedGuest
from wavelift.guest.facts import Devices, FileSystem, Firmware, Layout
from wavelift.guest.files import text_of
from wavelift.guest.mounts import Entry, entries
from wavelift.guest.windows import places

_ROOT_TYPES = ("ext2", "ext3", "ext4", "xfs", "btrfs", "ntfs")
_REFUSED = {
    "crypto_LUKS": ("an encrypted volume", "give its passphrase in a file: --key FILE"),
    "zfs_member": ("ZFS", "choose another migration route for this host; its replica is unharmed"),
    "bcache": ("bcache", "choose another migration route for this host; its replica is unharmed"),
    "BitLocker": ("BitLocker", "suspend or take BitLocker off on the source and replicate again"),
}
# What must be mounted to see kernels, and to write where their boot loader, drivers and configuration are.
_SYSTEM_POINTS = ("/", "/boot", "/boot/efi", "/efi", "/etc", "/usr", "/usr/local", "/var", "/var/lib")
_SUBVOLUME = re.compile(r"(?:^|,)subvol=/?([^,]+)")
_ARRAY = re.compile(r"^ARRAY\s+(/dev/\S+).*\bUUID=([0-9a-f:]+)", re.M | re.I)


def find_system(appliance: Appliance, keys: Sequence[Path] = ()) -> Layout:
    """The one system on the disks; refuses none, several, and kinds that are not handled."""
    present = volumes(appliance, keys)
    _refuse_hibernated(present)
    # A file system over several disks is on each of them.
    once = {
        # An NTFS is never; two that were made by one image have one serial number.
        volume.fs.device if volume.fs.kind == "ntfs" else volume.fs.uuid: volume.fs
        for volume in reversed(present)
        if volume.fs.kind in _ROOT_TYPES
    }
    roots = [root for fs in reversed(once.values()) for root in _roots(appliance, fs)]
    if not roots:
        _refuse(present)
    if len(roots) > 1:
        raise UnsupportedGuest(
            f"several systems: {', '.join(root.device for root in roots)}",
            "keep one system per host; leave the other disks out",
        )
    root = roots[0]
    if root.place is not None and root.place[0] != 0:
        raise UnsupportedGuest(
            f"the system is on disk number {root.place[0] + 1}", "give the boot disk first, then the others"
        )
    return places.layout_of(appliance, root, present) if root.kind == "ntfs" else _layout(appliance, root, present)


def mount(appliance: Appliance, layout: Layout, *, writable: bool) -> None:
    """Mount the system part of the guest, the shortest paths first."""
    for point in sorted(layout.mounts, key=len):
        fs = layout.mounts[point]
        appliance.mount(fs.device, point, writable=writable, in_place=fs.kind == "ntfs")


def _refuse(present: Sequence[Volume]) -> None:
    for kind, (name, remedy) in _REFUSED.items():
        if any(volume.fs.kind == kind for volume in present):
            raise UnsupportedGuest(f"no system but perhaps in {name}", remedy)
    found = ", ".join(f"{volume.fs.device}: {volume.fs.kind or 'nothing known'}" for volume in present) or "none"
    raise NoOperatingSystem(
        f"no installed system on the disks (file systems: {found})",
        "give the boot disk, and give it first; if it is there, check that its replica was verified",
    )


def _refuse_hibernated(present: Sequence[Volume]) -> None:
    for volume in present:
        if volume.fs.kind == "swsuspend":
            raise UnsupportedGuest(
                f"the machine is hibernated: its memory lies in the swap space on {volume.fs.device}",
                "start the source, shut it down in full or keep it running, and replicate again",
            )


def _roots(appliance: Appliance, fs: FileSystem) -> list[FileSystem]:
    """The file system, or of btrfs the subvolumes of it, that hold a system; snapshots of one are left out."""
    if fs.kind == "ntfs":
        return [fs] if places.has_windows(appliance, fs.device) else []
    if fs.kind != "btrfs":
        return [fs] if _fstab_of_root(appliance, fs.device) is not None else []
    appliance.mount(fs.device, "/", writable=False)
    handle = appliance.handle
    paths = {each["btrfssubvolume_id"]: each["btrfssubvolume_path"] for each in handle.btrfs_subvolume_list("/")}
    default: int = handle.btrfs_subvolume_get_default("/")
    appliance.umount_all()
    # A mount without an option gives the default one, which may be none of these: the top.
    candidates = {"": fs.device, **{path: f"btrfsvol:{fs.device}/{path}" for path in paths.values()}}
    found = {path: text for path, at in candidates.items() if (text := _fstab_of_root(appliance, at)) is not None}
    own = [path for path, text in found.items() if _names_itself(text, path, paths.get(default, ""))]
    return [replace(fs, device=candidates[path]) for path in own]


def _names_itself(fstab: str, path: str, default: str) -> bool:
    """Whether a subvolume is what its own fstab has as /, and not a snapshot of that."""
    root = next((entry for entry in entries(fstab) if entry.point == "/"), None)
    named = _SUBVOLUME.search(root.options) if root else None
    return path == (named[1] if named else default)


def _fstab_of_root(appliance: Appliance, device: str) -> str | None:
    """None where it is no root of a system; empty for one without fstab."""
    appliance.mount(device, "/", writable=False)
    try:
        if not any(appliance.is_file(path) for path in ("/etc/fstab", "/etc/os-release", "/usr/lib/os-release")):
            return None
        return text_of(appliance, "/etc/fstab")
    finally:
        appliance.umount_all()


def _layout(appliance: Appliance, root: FileSystem, present: Sequence[Volume]) -> Layout:
    devices = Devices({each.fs.place: each.fs.uuid for each in present if each.fs.uuid and each.fs.place is not None})
    appliance.mount(root.device, "/", writable=False)
    fstab = text_of(appliance, "/etc/fstab")
    arrays = (appliance.read("/etc/mdadm/mdadm.conf") or appliance.read("/etc/mdadm.conf") or b"").decode()
    esp_point = next((point for point in ("/efi", "/boot/efi") if appliance.handle.is_dir(point)), None)
    appliance.umount_all()
    known = {name: volume.fs for volume in present for name in volume.names}
    known |= _named_arrays(appliance, arrays, present)
    mounts = {"/": root}
    for entry in entries(fstab):
        if entry.point in _SYSTEM_POINTS and entry.point != "/" and entry.kind not in ("tmpfs", "none", "overlay"):
            mounts[entry.point] = _mounted(entry, known, present, devices)
    esp = next((volume.fs for volume in present if volume.is_esp and (volume.fs.place or (1, 0))[0] == 0), None)
    if esp and esp not in mounts.values() and esp_point:
        mounts[esp_point] = esp
    by_bios = esp is None or any(volume.is_bios_boot for volume in present)
    return Layout(root, mounts, devices, Firmware.BIOS if by_bios else Firmware.UEFI)


def _mounted(entry: Entry, known: dict[str, FileSystem], present: Sequence[Volume], devices: Devices) -> FileSystem:
    place = devices.locate(entry.device)
    placed = {volume.fs.place: volume.fs for volume in present if place is not None}
    item = known.get(entry.device) or placed.get(place)
    if item is None:
        raise UnsupportedGuest(
            f"fstab mounts {entry.device} on {entry.point}, and no given disk has it",
            "give all disks of the system, those of its volume groups, arrays and encrypted volumes among them",
        )
    subvolume = _SUBVOLUME.search(entry.options) if item.kind == "btrfs" else None
    return replace(item, device=f"btrfsvol:{item.device}/{subvolume[1]}") if subvolume else item


def _named_arrays(appliance: Appliance, conf: str, present: Sequence[Volume]) -> dict[str, FileSystem]:
    """The file systems on arrays by the names of mdadm.conf."""
    arrays = {volume.fs.device: volume.fs for volume in present if volume.fs.device.startswith("/dev/md")}
    by_uuid = {appliance.handle.md_detail(device)["uuid"].lower(): fs for device, fs in arrays.items()}
    return {name: by_uuid[uuid.lower()] for name, uuid in _ARRAY.findall(conf) if uuid.lower() in by_uuid}
