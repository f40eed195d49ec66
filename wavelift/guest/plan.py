"""From what a guest is to what has to change in it. Pure: reads through `GuestFiles`, writes nothing."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from wavelift.guest import initramfs
from wavelift.guest.bootconfig import (
    Devices,
    Rewritten,
    mount_points,
    rewrite_defaults,
    rewrite_fstab,
    rewrite_menu,
    rewrite_resume,
)
from wavelift.guest.drivers import REQUIRED, KernelModules, parse_tables
from wavelift.guest.errors import UnsupportedGuest
from wavelift.guest.files import FileEdit, GuestFiles

MENUS = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg")
MODULES_FILE = "/etc/initramfs-tools/modules"
_RESUME = "/etc/initramfs-tools/conf.d/resume"
_VERSION = re.compile(r"^\d[\w.+~-]*$")
_DATE_OF_SEGMENTS = 0


@dataclass(frozen=True)
class Kernel:
    """An installed kernel with its initramfs and module tables."""

    version: str
    initrd: str
    modules: KernelModules
    folder: str


@dataclass(frozen=True)
class Guest:
    """What was found out about a guest before anything is planned."""

    os: str
    kernels: tuple[Kernel, ...]
    menu: str
    devices: Devices
    root_uuid: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The edits, in the order in which they are safe: drivers first, names after."""

    edits: tuple[FileEdit, ...]
    warnings: tuple[str, ...]


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


def describe(files: GuestFiles, devices: Devices, root: tuple[int, int], root_uuid: str) -> Guest:
    """Find out what the planning needs, and refuse what it cannot handle."""
    menu = next((path for path in MENUS if files.read(path) is not None), None)
    if menu is None:
        raise UnsupportedGuest(
            "no GRUB 2 menu in /boot/grub or /boot/grub2",
            "only GRUB 2 is handled so far; install it on the source and replicate again",
        )
    if "i386-pc" not in files.names(menu.rpartition("/")[0]):
        raise UnsupportedGuest(
            "the boot loader is not GRUB for BIOS (there is no i386-pc folder): a UEFI system",
            "UEFI guests are not handled so far; choose another migration route for this host",
        )
    kernels, warnings = find_kernels(files)
    if not kernels:
        raise UnsupportedGuest(
            "no kernel with an initramfs (/boot/vmlinuz-*, /boot/initrd.img-*, /lib/modules/*)",
            "only Debian-style kernels with initramfs-tools are handled so far",
        )
    _check_order(files, devices, root)
    return Guest(os_name(files), tuple(kernels), menu, devices, root_uuid, tuple(warnings))


def os_name(files: GuestFiles) -> str:
    release = (files.read("/etc/os-release") or files.read("/usr/lib/os-release") or b"").decode()
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)"?$', release, re.M)
    return found[1] if found else "unknown Linux"


def make_plan(guest: Guest, files: GuestFiles) -> Plan:
    """Everything that has to change for the guest to boot on virtio; nothing when it is prepared already."""
    edits = []
    warnings = list(guest.warnings)
    for kernel in guest.kernels:
        edits += _initramfs_edit(kernel, files)
    edits += _edit(files, MODULES_FILE, keep_drivers, "later rebuilds of the initramfs keep the drivers")
    steps: tuple[tuple[str, Callable[[str, Devices], Rewritten], str], ...] = (
        ("/etc/fstab", rewrite_fstab, "file systems by UUID"),
        (guest.menu, rewrite_menu, "root= and resume= by UUID"),
        ("/etc/default/grub", rewrite_defaults, "the next update-grub writes UUIDs"),
        (_RESUME, rewrite_resume, "resume device by UUID"),
    )
    for path, rewrite, reason in steps:
        content = files.read(path)
        if content is None:
            continue
        rewritten = rewrite(_text(content), guest.devices)
        warnings += rewritten.warnings
        edits += _changed(path, content, rewritten.text, reason)
    return Plan(tuple(edits), tuple(warnings))


def _initramfs_edit(kernel: Kernel, files: GuestFiles) -> list[FileEdit]:
    data = _required(files, kernel.initrd)

    def read_module(path: str) -> bytes:
        return _required(files, f"{kernel.folder}/{path}")

    segment = initramfs.extension(initramfs.read(data, kernel.version), kernel.modules, read_module, _DATE_OF_SEGMENTS)
    if not segment:
        return []
    return [FileEdit(kernel.initrd, data, initramfs.append(data, segment), "virtio drivers and module tables")]


def keep_drivers(text: str) -> str:
    """/etc/initramfs-tools/modules with the drivers; entries may carry arguments and comments."""
    listed = {line.split()[0] for line in text.splitlines() if line.split() and not line.startswith("#")}
    missing = [name for name in REQUIRED if name not in listed]
    if not missing:
        return text
    if text and not text.endswith("\n"):
        text += "\n"
    return text + "# the disks of the cloud\n" + "".join(f"{name}\n" for name in missing)


def _edit(files: GuestFiles, path: str, change: Callable[[str], str], reason: str) -> list[FileEdit]:
    content = files.read(path)
    return [] if content is None else _changed(path, content, change(_text(content)), reason)


def _changed(path: str, before: bytes, after: str, reason: str) -> list[FileEdit]:
    encoded = after.encode("utf-8", "surrogateescape")
    return [FileEdit(path, before, encoded, reason)] if encoded != before else []


def _text(content: bytes) -> str:
    """Whatever the guest's encoding, what is not touched comes out as it went in."""
    return content.decode("utf-8", "surrogateescape")


def _required(files: GuestFiles, path: str) -> bytes:
    content = files.read(path)
    if content is None:
        raise UnsupportedGuest(
            f"{path} is named by the guest's own tables and is not there",
            "repair the kernel package on the source (apt install --reinstall) and replicate again",
        )
    return content


def _check_order(files: GuestFiles, devices: Devices, root: tuple[int, int]) -> None:
    """Letters are only worth something if the disks were given in the guest's own order."""
    named = mount_points(_text(files.read("/etc/fstab") or b"")).get("/")
    place = devices.locate(named) if named else None
    if place is not None and place != root:
        raise UnsupportedGuest(
            f"fstab says that / is {named}, and it is on partition {root[1]} of the disk given as number {root[0] + 1}",
            "give the disks in the order in which the source has them, the boot disk first",
        )
