"""The disks' drivers, loaded at boot before anything could install them."""

from __future__ import annotations

from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed, UnsupportedGuest
from wavelift.guest.evidence import REMEDY, Check
from wavelift.guest.files import GuestFiles
from wavelift.guest.windows.files import CONFIG, open_hive, real
from wavelift.guest.windows.hive import Value, binary, dword, expand_sz, multi_sz, sz
from wavelift.guest.windows.inspection import WindowsGuest, WindowsSystem
from wavelift.manifest.wishes import Wishes

_SCSI = "{4D36E97B-E325-11CE-BFC1-08002BE10318}"
_SCSI_PACKED = bytes.fromhex("7be9364d25e3ce11bfc108002be10318")
# By driver: what its package calls the bus, and the devices: transitional, modern.
_BUS = {"viostor": 1, "vioscsi": 10}
_DEVICES = {"viostor": ("1001", "1042"), "vioscsi": ("1004", "1048")}
# That this is a match by a package's own name for the device, and what makes it old: the real one is better.
_MATCH = bytes.fromhex("01ff0000")
_VERSION = bytes.fromhex("00ff090000000000") + _SCSI_PACKED + bytes(24)
_CONFIGURATION = "wavelift"
_PARTMGR_ONLINE = 1

Values = dict[tuple[str, str], Value]


def plan(guest: WindowsGuest, wishes: Wishes, draft: Draft) -> None:
    path, hive = open_hive(draft, f"{CONFIG}/SYSTEM")
    if guest.system.has_driver_database and not hive.has("DriverDatabase"):
        raise UnsupportedGuest(f"{path} has no DriverDatabase", "repair Windows on the source and replicate again")
    for driver in _present(guest):
        image = guest.drivers.image(driver)
        if image is not None:
            draft.write(_image_path(draft, driver), image, f"the driver {driver}")
    for (key, name), value in wanted(guest).items():
        hive.set(key, name, value)
    for driver in _present(guest):
        override = f"{guest.system.control_set}\\Services\\{driver}\\StartOverride"
        # Windows puts what a former machine did not need off by this.
        if hive.has(override):
            hive.set(override, "0", dword(0))
    draft.write(path, hive.content(), "disks by virtio from the boot on")


def check(guest: WindowsGuest, wishes: Wishes, files: GuestFiles) -> list[Check]:
    _, hive = open_hive(files, f"{CONFIG}/SYSTEM")
    for (key, name), value in wanted(guest).items():
        if hive.get(key, name) != value:
            raise PostconditionFailed(f"SYSTEM: {key}, {name or 'its default value'} is not what it has to be", REMEDY)
    for driver in _present(guest):
        if files.read(_image_path(files, driver)) != guest.drivers.image(driver):
            raise PostconditionFailed(f"{driver}.sys is not the driver of virtio-win", REMEDY)
    drivers = " and ".join(_present(guest))
    return [Check("disk drivers at boot", f"{drivers} of {guest.drivers.folder}, {len(wanted(guest))} registry values")]


def wanted(guest: WindowsGuest) -> Values:
    values: Values = {}
    for driver in _present(guest):
        values |= _service(guest.system, driver)
        ids = [each for number in _DEVICES[driver] for each in _ids(number)]
        values |= (
            _database(guest.system, driver, ids)
            if guest.system.has_driver_database
            else _critical(guest.system, driver, ids)
        )
    # Disks on a bus that Windows takes for shared stay offline on servers otherwise.
    values[f"{guest.system.control_set}\\Services\\partmgr\\Parameters", "SanPolicy"] = dword(_PARTMGR_ONLINE)
    return values


def _present(guest: WindowsGuest) -> list[str]:
    return [driver for driver in _BUS if driver in guest.drivers.packages]


def _image_path(files: GuestFiles, driver: str) -> str:
    return real(files, f"/Windows/System32/drivers/{driver}.sys")


def _ids(device: str) -> list[str]:
    """As devices name themselves; with a revision those of QEMU, without those of others."""
    revision = "REV_00" if device.startswith("100") else "REV_01"
    return [f"VEN_1AF4&DEV_{device}", f"VEN_1AF4&DEV_{device}&{revision}"]


def _service(system: WindowsSystem, driver: str) -> Values:
    key = f"{system.control_set}\\Services\\{driver}"
    return {
        (key, "Type"): dword(1),
        (key, "Start"): dword(0),
        (key, "ErrorControl"): dword(1),
        (key, "Group"): sz("SCSI miniport"),
        (key, "ImagePath"): expand_sz(f"system32\\drivers\\{driver}.sys"),
        (f"{key}\\Parameters", "BusType"): dword(_BUS[driver]),
        (f"{key}\\Parameters\\PnpInterface", "5"): dword(1),
    }


def _critical(system: WindowsSystem, driver: str, ids: list[str]) -> Values:
    """Windows 7: devices that are needed before drivers can be installed."""
    values: Values = {}
    for each in ids:
        key = f"{system.control_set}\\Control\\CriticalDeviceDatabase\\PCI#{each}"
        values[key, "Service"] = sz(driver)
        values[key, "ClassGUID"] = sz(_SCSI)
    return values


def _database(system: WindowsSystem, driver: str, ids: list[str]) -> Values:
    """Windows 8 and later: a package of ours, by a name that no other has."""
    inf = f"wavelift-{driver}.inf"
    package = f"{inf}_{system.architecture}_0000000000000000"
    packages = f"DriverDatabase\\DriverPackages\\{package}"
    values: Values = {
        (f"DriverDatabase\\DriverInfFiles\\{inf}", ""): multi_sz(package),
        (f"DriverDatabase\\DriverInfFiles\\{inf}", "Active"): sz(package),
        (f"DriverDatabase\\DriverInfFiles\\{inf}", "Configurations"): multi_sz(_CONFIGURATION),
        (packages, "Version"): binary(_VERSION),
        (f"{packages}\\Configurations\\{_CONFIGURATION}", "ConfigFlags"): dword(0),
        (f"{packages}\\Configurations\\{_CONFIGURATION}", "Service"): sz(driver),
    }
    for each in ids:
        values[f"DriverDatabase\\DeviceIds\\PCI\\{each}", inf] = binary(_MATCH)
        values[f"{packages}\\Descriptors\\PCI\\{each}", "Configuration"] = sz(_CONFIGURATION)
    return values
