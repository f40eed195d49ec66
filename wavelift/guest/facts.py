"""What was found out about a guest before anything is planned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from wavelift.guest.files import GuestFiles
from wavelift.guest.initramfs.drivers import KernelModules, parse_tables

_VERSION = re.compile(r"^\d[\w.+~-]*$")
# What belongs to a kernel, by family: Debian and Ubuntu; Red Hat's; SUSE.
_INITRDS = ("initrd.img-{}", "initramfs-{}.img", "initrd-{}")
_IMAGES = ("vmlinuz-{}", "vmlinux-{}", "Image-{}", "image-{}")
# Names that another controller changes: by letter (sda1, hda1, vda1, xvda1), by number (nvme0n1p1, mmcblk0p1), by the
# disk's serial or slot. Under by-id are also names of LVM and RAID, which stay.
_LETTERS = re.compile(r"^/dev/(?:sd|hd|vd|xvd)([a-z])(\d+)?$")
_NUMBERS = re.compile(r"^/dev/(?:nvme(\d+)n1|mmcblk(\d+))(?:p(\d+))?$")
_SERIAL = re.compile(r"^/dev/disk/by-(?:id/(?!dm-|md-|lvm-)|path/).+?(?:-part(\d+))?$")

Place = tuple[int, int]


class Firmware(StrEnum):
    BIOS = "bios"
    UEFI = "uefi"


@dataclass(frozen=True)
class System:
    """From os-release: `id` (debian, rhel, sles), what it is `like`, `version` as in VERSION_ID, and the name that
    people know it by."""

    id: str
    like: tuple[str, ...]
    version: str
    name: str

    def is_a(self, *ids: str) -> bool:
        return not {self.id, *self.like}.isdisjoint(ids)


@dataclass(frozen=True)
class Kernel:
    """An installed kernel that can boot, with its initramfs and module tables. `folder` holds its modules."""

    version: str
    image: str
    initrd: str
    modules: KernelModules
    folder: str


class Devices:
    """The UUIDs of the guest's file systems by the names that the guest gives them."""

    def __init__(self, uuids: Mapping[Place, str]) -> None:
        """`uuids`: by number of the disk (from 0, the order in which the guest has them) and of the partition."""
        self._uuids = dict(uuids)

    def locate(self, name: str) -> Place | None:
        """Disk and partition (0: the whole disk) that a name stands for which changes with the controller. None for
        other names, and for those by serial or slot where there are several disks: which is meant cannot be told."""
        if found := _LETTERS.match(name):
            return ord(found[1]) - ord("a"), int(found[2] or 0)
        if found := _NUMBERS.match(name):
            return int(found[1] or found[2]), int(found[3] or 0)
        if (found := _SERIAL.match(name)) and {disk for disk, _ in self._uuids} == {0}:
            return 0, int(found[1] or 0)
        return None

    def uuid(self, name: str) -> str | None:
        """None for names that do not change, and for what is on none of the disks."""
        place = self.locate(name)
        return self._uuids.get(place) if place else None

    @staticmethod
    def changes(name: str) -> bool:
        """Whether the name will be another one, or nobody's, on the target."""
        return any(pattern.match(name) for pattern in (_LETTERS, _NUMBERS, _SERIAL))


@dataclass(frozen=True)
class FileSystem:
    """`device` is the appliance's name for it (/dev/sda1, /dev/vg/root); `kind` as blkid has it. `place` is disk (from
    0) and partition (0: the whole disk), None where it lies on LVM, RAID or an encrypted volume."""

    device: str
    kind: str
    uuid: str
    place: Place | None = None


@dataclass(frozen=True)
class Layout:
    """Where the system is: its root, the file systems of its system part by mount point (/ among them), all names."""

    root: FileSystem
    mounts: Mapping[str, FileSystem]
    devices: Devices
    firmware: Firmware = Firmware.BIOS


@dataclass(frozen=True)
class Guest:
    system: System
    kernels: tuple[Kernel, ...]
    layout: Layout
    warnings: tuple[str, ...] = field(default=())

    @property
    def root(self) -> FileSystem:
        return self.layout.root

    @property
    def devices(self) -> Devices:
        return self.layout.devices


def describe(files: GuestFiles, layout: Layout) -> Guest:
    kernels, warnings = find_kernels(files)
    return Guest(system_of(files), tuple(kernels), layout, tuple(warnings))


def find_kernels(files: GuestFiles) -> tuple[list[Kernel], list[str]]:
    """The kernels that can boot, and what is odd about the others."""
    kernels = []
    warnings = []
    boot = set(files.names("/boot"))
    for version in files.names("/lib/modules"):
        image = next((name for each in _IMAGES if (name := each.format(version)) in boot), None)
        if not _VERSION.match(version) or image is None:
            continue
        initrd = next((name for each in _INITRDS if (name := each.format(version)) in boot), None)
        if initrd is None:
            warnings.append(f"kernel {version} has no initramfs in /boot and was left alone")
            continue
        folder = f"/lib/modules/{version}"
        dep = files.read(f"{folder}/modules.dep")
        if dep is None:
            warnings.append(f"kernel {version} has no modules.dep and was left alone")
            continue
        builtin = files.read(f"{folder}/modules.builtin") or b""
        tables = parse_tables(version, dep.decode(), builtin.decode())
        kernels.append(Kernel(version, f"/boot/{image}", f"/boot/{initrd}", tables, folder))
    return kernels, warnings


def system_of(files: GuestFiles) -> System:
    release = files.read("/etc/os-release") or files.read("/usr/lib/os-release")
    fields = _fields((release or b"").decode("utf-8", "replace"))
    like = tuple(fields.get("ID_LIKE", "").split())
    return System(
        fields.get("ID", "linux"), like, fields.get("VERSION_ID", ""), fields.get("PRETTY_NAME", "unknown Linux")
    )


def _fields(release: str) -> dict[str, str]:
    found = re.findall(r"^([A-Z_]+)=(?:\"([^\"\n]*)\"|'([^'\n]*)'|(\S*))\s*$", release, re.M)
    return {name: double or single or bare for name, double, single, bare in found}
