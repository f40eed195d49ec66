"""The boot loader: no repair screen after what looks like a crash, where nobody could answer it."""

from __future__ import annotations

from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed
from wavelift.guest.evidence import REMEDY, Check
from wavelift.guest.files import GuestFiles
from wavelift.guest.windows.files import open_hive, real
from wavelift.guest.windows.hive import Hive, binary
from wavelift.guest.windows.inspection import WindowsGuest
from wavelift.manifest.wishes import Wishes

PLACES = ("Boot/BCD", "EFI/Microsoft/Boot/BCD")
_WINDOWS_LOADER = 0x10200003
# BootStatusPolicy; 1: ignore all failures.
_POLICY = "250000e0"
_IGNORE = binary((1).to_bytes(8, "little"))


def plan(guest: WindowsGuest, wishes: Wishes, draft: Draft) -> None:
    stores = _stores(guest, draft)
    if not stores:
        draft.warn("no BCD was found: after a crash Windows may wait in its repair screen")
    for path in stores:
        _, hive = open_hive(draft, path)
        for element in _policies(hive):
            hive.set(element, "Element", _IGNORE)
        draft.write(path, hive.content(), "boot without waiting in the repair screen")


def check(guest: WindowsGuest, wishes: Wishes, files: GuestFiles) -> list[Check]:
    stores = _stores(guest, files)
    for path in stores:
        _, hive = open_hive(files, path)
        if any(hive.get(element, "Element") != _IGNORE for element in _policies(hive)):
            raise PostconditionFailed(f"{path} still has Windows wait after a failed boot", REMEDY)
    return [Check("no repair screen", ", ".join(stores))] if stores else []


def _stores(guest: WindowsGuest, files: GuestFiles) -> list[str]:
    points = sorted(point.rstrip("/") for point in guest.layout.mounts)
    paths = (real(files, f"{point}/{place}") for point in points for place in PLACES)
    return [path for path in paths if files.read(path) is not None]


def _policies(hive: Hive) -> list[str]:
    """The element of every loader of a Windows."""
    loaders = (
        each for each in hive.keys("Objects") if hive.number(f"Objects\\{each}\\Description", "Type") == _WINDOWS_LOADER
    )
    return [f"Objects\\{each}\\Elements\\{_POLICY}" for each in loaders]
