"""What lies on a guest's disks, on partitions, LVM, software RAID and encrypted volumes, by all its names."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wavelift.guest.appliance import Appliance
from wavelift.guest.errors import UnsupportedGuest
from wavelift.guest.facts import FileSystem, Place

_PLACE = re.compile(r"^/dev/sd([a-z])(\d*)$")
# By what /dev/disk/by-... and fstab call them.
_TAGS = (("UUID", "uuid"), ("LABEL", "label"), ("PART_ENTRY_UUID", "partuuid"), ("PART_ENTRY_NAME", "partlabel"))
_ESP = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "0xef")
_BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
_OPENED = "wavelift-luks-"


@dataclass(frozen=True)
class Volume:
    """A partition, a whole disk, or what is made of them. `fs.kind` is also that of what holds others (LVM2_member).
    `names`: those of the guest's that do not change with the controller, as fstab has them. `type`: of a partition, as
    its table has it."""

    fs: FileSystem
    names: frozenset[str]
    type: str = ""

    @property
    def is_esp(self) -> bool:
        return self.type in _ESP and self.fs.kind == "vfat"

    @property
    def is_bios_boot(self) -> bool:
        return self.type == _BIOS_BOOT


def volumes(appliance: Appliance, keys: Sequence[Path] = ()) -> list[Volume]:
    """Those of the disks as they are. `keys`: files with the passphrases of encrypted ones, of which each is tried."""
    handle = appliance.handle
    partitions: list[str] = handle.list_partitions()
    whole = [disk for disk in handle.list_devices() if not any(name.startswith(disk) for name in partitions)]
    found = [_described(appliance, device, ()) for device in [*whole, *partitions, *handle.list_md_devices()]]
    opened = [each for volume in found if volume.fs.kind == "crypto_LUKS" for each in _opened(appliance, volume, keys)]
    if opened:
        handle.lvm_scan(True)
    return [*found, *opened, *_logical(appliance)]


def _logical(appliance: Appliance) -> list[Volume]:
    logical: list[str] = appliance.handle.lvs()
    return [_described(appliance, device, _lvm_names(device)) for device in logical]


def _described(appliance: Appliance, device: str, names: Iterable[str]) -> Volume:
    about: dict[str, str] = appliance.handle.blkid(device)
    tags = {tag: about[key] for key, tag in _TAGS if about.get(key)}
    stable = {f"{tag.upper()}={value}" for tag, value in tags.items()}
    stable |= {f"/dev/disk/by-{tag}/{value}" for tag, value in tags.items()}
    if device.startswith("/dev/md"):
        stable |= _raid_names(appliance.handle.md_detail(device).get("name", ""))
    fs = FileSystem(device, about.get("TYPE", ""), about.get("UUID", ""), _place(device))
    return Volume(fs, frozenset([*names, *stable]), about.get("PART_ENTRY_TYPE", ""))


def _opened(appliance: Appliance, volume: Volume, keys: Sequence[Path]) -> list[Volume]:
    """Nothing without keys: what cannot be looked into may not be needed."""
    name = _OPENED + volume.fs.uuid
    for key in keys:
        passphrase = key.read_text(encoding="utf-8").rstrip("\n")
        try:
            appliance.handle.cryptsetup_open(volume.fs.device, passphrase, name)
        except RuntimeError as error:
            if "No key available" not in str(error):
                raise
            continue
        # Debian's installer, and systemd's, name it so unless told otherwise.
        return [_described(appliance, f"/dev/mapper/{name}", [f"/dev/mapper/luks-{volume.fs.uuid}"])]
    if keys:
        raise UnsupportedGuest(
            f"none of the {len(keys)} keys opens the encrypted volume {volume.fs.uuid}",
            "give the passphrase of this one too, in a file of its own",
        )
    return []


def _place(device: str) -> Place | None:
    """Number of the disk from 0, number of the partition (0: the whole disk)."""
    found = _PLACE.match(device)
    return (ord(found[1]) - ord("a"), int(found[2] or 0)) if found else None


def _lvm_names(device: str) -> list[str]:
    """/dev/group/volume, and as device-mapper writes it: /dev/mapper/group-volume, with dashes doubled."""
    group, volume = (part.replace("-", "--") for part in device.removeprefix("/dev/").split("/"))
    return [device, f"/dev/mapper/{group}-{volume}"]


def _raid_names(name: str) -> set[str]:
    """`host:name`, as the array's superblock has it."""
    own = name.rpartition(":")[2]
    return {f"/dev/md/{own}", f"/dev/md{own}"} if own.isdigit() else {f"/dev/md/{own}"} - {"/dev/md/"}
