"""What was found out about a guest before anything is planned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from wavelift.guest.files import GuestFiles
from wavelift.guest.initramfs.drivers import KernelModules, parse_tables

_VERSION = re.compile(r"^\d[\w.+~-]*$")
# What belongs to a kernel, by family: Debian and Ubuntu; Red Hat's; SUSE.
_INITRDS = ("initrd.img-{}", "initramfs-{}.img", "initrd-{}")
_IMAGES = ("vmlinuz-{}", "vmlinux-{}", "Image-{}", "image-{}")
# Of names by letter: sda1, hda1, vda1, xvda1.
_LETTERS = re.compile(r"^/dev/(?:sd|hd|vd|xvd)([a-z])(\d+)?$")


@dataclass(frozen=True)
class System:
    """From os-release: `id` (debian, rhel, sles), what it is `like`, `version` as in VERSION_ID, and the name that
    people know it by. Older systems without that file: see `system_of`."""

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

    def __init__(self, uuids: Mapping[tuple[int, int], str]) -> None:
        """`uuids`: by number of the disk (from 0, the order in which the guest has them) and of the partition."""
        self._uuids = dict(uuids)

    def locate(self, name: str) -> tuple[int, int] | None:
        """Disk and partition (0: the whole disk) that a device letter stands for."""
        found = _LETTERS.match(name)
        return (ord(found[1]) - ord("a"), int(found[2] or 0)) if found else None

    def uuid(self, name: str) -> str | None:
        place = self.locate(name)
        return self._uuids.get(place) if place else None


@dataclass(frozen=True)
class Root:
    """Where / is: disk (from 0) and partition (0: the whole disk), UUID and kind (ext4, xfs) of its file system."""

    place: tuple[int, int]
    uuid: str
    kind: str


@dataclass(frozen=True)
class Guest:
    system: System
    kernels: tuple[Kernel, ...]
    devices: Devices
    root: Root
    warnings: tuple[str, ...] = ()


def describe(files: GuestFiles, devices: Devices, root: Root) -> Guest:
    kernels, warnings = find_kernels(files)
    return Guest(system_of(files), tuple(kernels), devices, root, tuple(warnings))


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
