"""Which Windows is installed, by its registry, and what of it cannot be prepared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wavelift.guest.errors import MissingDriver, UnsupportedGuest
from wavelift.guest.facts import Layout
from wavelift.guest.files import GuestFiles
from wavelift.guest.windows.drivers import WHERE, Drivers, find_drivers
from wavelift.guest.windows.files import CONFIG, open_hive, real

_CURRENT = "Microsoft\\Windows NT\\CurrentVersion"
_CLIENTS = {"6.1": ("w7",), "6.2": ("w8",), "6.3": ("w8.1",)}
_SERVERS = {"6.1": ("2k8R2",), "6.2": ("2k12",), "6.3": ("2k12R2",)}
# Builds of 10.0 from which on a folder is the best; those after it do as well.
_CLIENT_BUILDS = ((22000, "w11"), (10240, "w10"))
_SERVER_BUILDS = ((26100, "2k25"), (20348, "2k22"), (17763, "2k19"), (14393, "2k16"))
_ARCHITECTURES = {"amd64": "amd64", "x86": "x86"}
_HIBERNATED = (b"hibr", b"rstr", b"wake")
_ANOTHER_ROUTE = "choose another migration route for this host; its replica is unharmed"

# The first bytes of a file, None where there is none: hiberfil.sys is as large as the machine's memory.
Head = Callable[[str, int], bytes | None]


@dataclass(frozen=True)
class WindowsSystem:
    """`version` as 6.1 or 10.0. `folders`: virtio-win's names for it, the best first. `control_set`: the key in SYSTEM
    that is used at the next boot."""

    name: str
    version: str
    build: int
    server: bool
    architecture: str
    control_set: str
    folders: tuple[str, ...]

    @property
    def has_driver_database(self) -> bool:
        """From Windows 8 on; before it, critical devices have a list of their own."""
        return self.version != "6.1"


@dataclass(frozen=True)
class WindowsGuest:
    system: WindowsSystem
    drivers: Drivers
    layout: Layout
    warnings: tuple[str, ...] = ()


def find_windows(files: GuestFiles, head: Head) -> WindowsSystem:
    """The Windows at the root. Raises `UnsupportedGuest`."""
    _refuse_hibernated(head(real(files, "/hiberfil.sys"), 4))
    _, software = open_hive(files, f"{CONFIG}/SOFTWARE")
    _, system = open_hive(files, f"{CONFIG}/SYSTEM")
    number = system.number("Select", "Current")
    control_set = f"ControlSet{number or 0:03}"
    if not system.has(f"{control_set}\\Services"):
        raise UnsupportedGuest(f"{CONFIG}/SYSTEM has no {control_set}", "repair Windows on the source")
    major = software.number(_CURRENT, "CurrentMajorVersionNumber")
    minor = software.number(_CURRENT, "CurrentMinorVersionNumber")
    version = f"{major}.{minor or 0}" if major else software.text(_CURRENT, "CurrentVersion")
    digits = software.text(_CURRENT, "CurrentBuildNumber")
    build = int(digits) if digits.isdecimal() else 0
    product = software.text(_CURRENT, "ProductName") or "Windows"
    kind = software.text(_CURRENT, "InstallationType")
    server = kind.startswith("Server") if kind else "Server" in product
    name = product.replace("Windows 10", "Windows 11") if build >= _CLIENT_BUILDS[0][0] else product
    environment = f"{control_set}\\Control\\Session Manager\\Environment"
    processor = system.text(environment, "PROCESSOR_ARCHITECTURE").lower()
    architecture = _ARCHITECTURES.get(processor)
    if architecture is None:
        raise UnsupportedGuest(f"{name} for processors of the kind {processor or 'unknown'}", _ANOTHER_ROUTE)
    folders = _folders(version, build, server=server)
    if not folders:
        raise UnsupportedGuest(
            f"{name}, version {version or 'unknown'} (build {build}), is not known: 7 and 2008 R2 to 11 and 2025 are",
            _ANOTHER_ROUTE,
        )
    return WindowsSystem(name, version, build, server, architecture, control_set, folders)


def describe(system: WindowsSystem, layout: Layout, virtio_win: GuestFiles | None) -> WindowsGuest:
    """`virtio_win`: the folder that the user gave."""
    if virtio_win is None:
        raise MissingDriver(f"{system.name} needs the drivers of virtio-win, and none were given", WHERE)
    drivers = find_drivers(virtio_win, system.folders, system.architecture, system.name)
    warnings = []
    if drivers.folder != system.folders[0]:
        warnings.append(
            f"virtio-win has no {system.folders[0]} for {system.name}: drivers of {drivers.folder} are used"
        )
    if system.version == "6.1":
        warnings.append(f"{system.name} starts drivers signed with SHA-2 only once KB3033929 or KB4474419 is installed")
    return WindowsGuest(system, drivers, layout, tuple(warnings))


def _folders(version: str, build: int, *, server: bool) -> tuple[str, ...]:
    if version != "10.0":
        return (_SERVERS if server else _CLIENTS).get(version, ())
    return tuple(folder for least, folder in (_SERVER_BUILDS if server else _CLIENT_BUILDS) if build >= least)


def _refuse_hibernated(signature: bytes | None) -> None:
    if signature is not None and signature[:4].lower() in _HIBERNATED:
        raise UnsupportedGuest(
            f"Windows is hibernated, or was shut down for a fast start-up (hiberfil.sys begins with {signature[:4]!r})",
            "on the source: powercfg /h off, then shutdown /s /t 0; replicate again",
        )
