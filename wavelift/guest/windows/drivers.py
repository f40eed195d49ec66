"""Drivers as virtio-win lays them out: driver/version/architecture, at the top or in drivers/by-driver."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wavelift.guest.errors import MissingDriver
from wavelift.guest.files import GuestFiles
from wavelift.guest.windows.files import real

_TOPS = ("", "/drivers/by-driver")
_REQUIRED = ("viostor", "NetKVM")
_WANTED = ("viostor", "vioscsi", "NetKVM", "Balloon", "vioserial", "viorng")
_MACHINES = {"amd64": 0x8664, "x86": 0x014C}
WHERE = (
    "unpack virtio-win (https://fedorapeople.org/groups/virt/virtio-win/, or the package virtio-win) into a folder, "
    "and give that: --virtio-win FOLDER"
)


@dataclass(frozen=True)
class Drivers:
    """The files of each driver by lower-case name; drivers by the names that virtio-win gives them."""

    folder: str
    packages: Mapping[str, Mapping[str, bytes]]

    def image(self, driver: str) -> bytes | None:
        return self.packages.get(driver, {}).get(f"{driver.lower()}.sys")


def find_drivers(source: GuestFiles, versions: Sequence[str], architecture: str, system: str) -> Drivers:
    """`versions`: virtio-win's names for the Windows, the best first. Raises `MissingDriver`."""
    for version in versions:
        for top in _TOPS:
            found = {driver: _package(source, f"{top}/{driver}/{version}/{architecture}") for driver in _WANTED}
            if all(found[driver] for driver in _REQUIRED):
                drivers = Drivers(version, {driver: package for driver, package in found.items() if package})
                _check(drivers, architecture)
                return drivers
    raise MissingDriver(
        f"virtio-win has no {' and '.join(_REQUIRED)} for {system} ({', '.join(versions)}; {architecture})", WHERE
    )


def _package(source: GuestFiles, folder: str) -> dict[str, bytes]:
    """Without debugging symbols, and the protocol driver of SR-IOV, which gets into the way of NetKVM."""
    place = real(source, folder)
    names = [
        name
        for name in source.names(place)
        if not name.lower().endswith(".pdb") and not name.lower().startswith("vioprot")
    ]
    read = {name.lower(): source.read(f"{place}/{name}") for name in names}
    return {name: content for name, content in read.items() if content is not None}


def _check(drivers: Drivers, architecture: str) -> None:
    for driver, package in drivers.packages.items():
        for suffix in ("inf", "sys", "cat"):
            if f"{driver.lower()}.{suffix}" not in package:
                raise MissingDriver(f"{driver}/{drivers.folder}/{architecture} has no {driver.lower()}.{suffix}", WHERE)
        if machine(package[f"{driver.lower()}.sys"]) != _MACHINES[architecture]:
            raise MissingDriver(f"{driver}/{drivers.folder}/{architecture} is no driver for {architecture}", WHERE)


def machine(image: bytes) -> int | None:
    """Of a PE image: which processors it is for; None for what is no such image."""
    if len(image) < 64 or image[:2] != b"MZ":
        return None
    (header,) = struct.unpack_from("<I", image, 60)
    if image[header : header + 4] != b"PE\0\0" or len(image) < header + 6:
        return None
    (number,) = struct.unpack_from("<H", image, header + 4)
    return int(number)
