"""What was found out about a guest before anything is planned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from wavelift.guest.files import GuestFiles
from wavelift.guest.initramfs.drivers import KernelModules, parse_tables

_VERSION = re.compile(r"^\d[\w.+~-]*$")
# Of names by letter: sda1, hda1, vda1, xvda1.
_LETTERS = re.compile(r"^/dev/(?:sd|hd|vd|xvd)([a-z])(\d+)?$")


@dataclass(frozen=True)
class Kernel:
    """An installed kernel that can boot, with its initramfs and module tables. `folder` holds its modules."""

    version: str
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
    """Where / is: disk (from 0) and partition (0: the whole disk), and the UUID of its file system."""

    place: tuple[int, int]
    uuid: str


@dataclass(frozen=True)
class Guest:
    os: str
    kernels: tuple[Kernel, ...]
    devices: Devices
    root: Root
    warnings: tuple[str, ...] = ()


def describe(files: GuestFiles, devices: Devices, root: Root) -> Guest:
    kernels, warnings = find_kernels(files)
    return Guest(os_name(files), tuple(kernels), devices, root, tuple(warnings))


def find_kernels(files: GuestFiles) -> tuple[list[Kernel], list[str]]:
    """The kernels that can boot, and what is odd about the others."""
    kernels = []
    warnings = []
    boot = set(files.names("/boot"))
    for version in files.names("/lib/modules"):
        if not _VERSION.match(version) or f"vmlinuz-{version}" not in boot:
            continue
        if f"initrd.img-{version}" not in boot:
            warnings.append(f"kernel {version} has no /boot/initrd.img-{version} and was left alone")
            continue
        folder = f"/lib/modules/{version}"
        dep = files.read(f"{folder}/modules.dep")
        if dep is None:
            warnings.append(f"kernel {version} has no modules.dep and was left alone")
            continue
        builtin = files.read(f"{folder}/modules.builtin") or b""
        tables = parse_tables(version, dep.decode(), builtin.decode())
        kernels.append(Kernel(version, f"/boot/initrd.img-{version}", tables, folder))
    return kernels, warnings


def os_name(files: GuestFiles) -> str:
    release = (files.read("/etc/os-release") or files.read("/usr/lib/os-release") or b"").decode()
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)"?$', release, re.M)
    return found[1] if found else "unknown Linux"
