"""Trees of Windows machines and of virtio-win, as far as a preparation looks at them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.guest.windows.hives import Tree, write
from wavelift.guest.facts import Devices, FileSystem, Layout
from wavelift.guest.files import DirectoryFiles
from wavelift.guest.windows.hive import dword, expand_sz, multi_sz, sz
from wavelift.guest.windows.inspection import WindowsGuest, WindowsSystem, describe, find_windows

ROOT = FileSystem("/dev/sda2", "ntfs", "0123456789ABCDEF", (0, 2))
LAYOUT = Layout(ROOT, {"/": ROOT}, Devices({(0, 2): ROOT.uuid}))
LOADER = "{7ea2e1ac-2e61-4728-aaa3-896d9d0a9f0e}"
CLASS = "{4d36e97d-e325-11ce-bfc1-08002be10318}"
MACHINES = {"amd64": 0x8664, "x86": 0x14C}


@dataclass(frozen=True)
class Release:
    product: str
    version: str
    build: int
    kind: str
    folder: str
    processor: str = "AMD64"


RELEASES = (
    Release("Windows 7 Professional", "6.1", 7601, "Client", "w7"),
    Release("Windows Server 2008 R2 Standard", "6.1", 7601, "Server", "2k8R2"),
    Release("Windows Server 2012 R2 Standard", "6.3", 9600, "Server", "2k12R2"),
    Release("Windows 10 Pro", "10.0", 19045, "Client", "w10"),
    Release("Windows 10 Pro", "10.0", 19045, "Client", "w10", "x86"),
    Release("Windows Server 2016 Standard", "10.0", 14393, "Server", "2k16"),
    Release("Windows Server 2019 Datacenter", "10.0", 17763, "Server Core", "2k19"),
    Release("Windows Server 2022 Standard", "10.0", 20348, "Server", "2k22"),
    Release("Windows Server 2025 Standard", "10.0", 26100, "Server", "2k25"),
    Release("Windows 10 Pro", "10.0", 26100, "Client", "w11"),
)


def make_windows(root: Path, release: Release) -> Path:
    current: dict[str, object] = {
        "CurrentVersion": sz("6.3" if release.version == "10.0" else release.version),
        "CurrentBuildNumber": sz(str(release.build)),
        "ProductName": sz(release.product),
        "InstallationType": sz(release.kind),
    }
    if release.version == "10.0":
        current |= {"CurrentMajorVersionNumber": dword(10), "CurrentMinorVersionNumber": dword(0)}
    software = {
        "Microsoft": {
            "Windows NT": {"CurrentVersion": current},
            "Windows": {"CurrentVersion": {"DevicePath": expand_sz("%SystemRoot%\\inf")}},
        }
    }
    put(root, "Windows/System32/config/SOFTWARE", write(software))  # type: ignore[arg-type]
    put(root, "Windows/System32/config/SYSTEM", write(system_hive(release)))
    put(root, "Windows/System32/drivers/disk.sys", b"disk")
    bcd = {"Objects": {LOADER: {"Description": {"Type": dword(0x10200003)}, "Elements": {}}}}
    put(root, "Boot/BCD", write(bcd))
    return root


def system_hive(release: Release) -> Tree:
    services: dict[str, Tree] = {
        "disk": {"Start": dword(0)},
        "VMTools": {"Start": dword(2)},
        "xenfilt": {"Start": dword(0)},
        "vmicheartbeat": {"Start": dword(3)},
    }
    control: dict[str, Tree] = {
        "Session Manager": {"Environment": {"PROCESSOR_ARCHITECTURE": sz(release.processor)}},
        "Class": {CLASS: {"UpperFilters": multi_sz("partmgr", "XenFilt")}},
    }
    tree: dict[str, Tree] = {
        "Select": {"Current": dword(2), "Default": dword(2)},
        "ControlSet001": {"Services": {}},
        "ControlSet002": {"Control": control, "Services": services},
    }
    if release.version != "6.1":
        tree["DriverDatabase"] = {"DeviceIds": {"PCI": {}}, "DriverInfFiles": {}, "DriverPackages": {}}
    return tree


def make_virtio_win(root: Path, folder: str, architecture: str, top: str = "") -> Path:
    for driver in ("viostor", "vioscsi", "NetKVM", "Balloon"):
        name = driver.lower()
        image = b"MZ".ljust(60, b"\0") + struct.pack("<I4sH", 64, b"PE\0\0", MACHINES[architecture]) + driver.encode()
        for suffix, content in (("inf", b"[Version]"), ("cat", b"cat"), ("sys", image), ("pdb", b"symbols")):
            put(root, f"{top}{driver}/{folder}/{architecture}/{name}.{suffix}", content)
    put(root, f"{top}NetKVM/{folder}/{architecture}/vioprot.inf", b"no")
    return root


def put(root: Path, path: str, content: bytes) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def inspected(root: Path) -> WindowsSystem:
    files = DirectoryFiles(root)
    return find_windows(files, lambda path, size: (files.read(path) or b"")[:size] or None)


def guest_of(root: Path, virtio_win: Path) -> WindowsGuest:
    return describe(inspected(root), LAYOUT, DirectoryFiles(virtio_win))


def content_of(root: Path) -> Mapping[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
