"""UEFI: a cloud's firmware remembers no boot entry of the source, and starts what lies at one place on the ESP.

That is EFI/BOOT/BOOTX64.EFI (BOOTAA64.EFI on arm64), UEFI specification 3.5.1.1. A shim starts what lies beside it, and
a signed GRUB looks for its menu in the folder of its distribution: so both are put there as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed, UnsupportedGuest
from wavelift.guest.evidence import REMEDY, Check
from wavelift.guest.facts import Firmware, Guest
from wavelift.guest.files import GuestFiles
from wavelift.manifest.wishes import Wishes

# The names of the fallback, and of what is it, in the order in which it is preferred; {} is x64 or aa64.
_ARCHITECTURES = (("x64", "BOOTX64.EFI"), ("aa64", "BOOTAA64.EFI"))
_LOADERS = ("shim{}.efi", "systemd-boot{}.efi", "grub{}.efi")
_BESIDE = ("grub{}.efi", "mm{}.efi")
_REASON = "the firmware of a cloud starts what lies here"


def plan(guest: Guest, wishes: Wishes, draft: Draft) -> None:
    if guest.layout.firmware is not Firmware.UEFI:
        return
    esp = _esp(guest)
    if _fallback(draft, esp) is not None:
        return
    for architecture, name in _ARCHITECTURES:
        for wanted in _LOADERS:
            for folder, there in _found(draft, esp, wanted.format(architecture)):
                _copy(draft, f"{folder}/{there}", f"{_made(draft, esp)}/{name}")
                if wanted.startswith("shim"):
                    for beside in _BESIDE:
                        for other, file in _found(draft, esp, beside.format(architecture)):
                            if other == folder:
                                _copy(draft, f"{folder}/{file}", f"{_made(draft, esp)}/{file}")
                return
    raise UnsupportedGuest(
        f"no boot loader on the EFI system partition ({esp}): none of {', '.join(_LOADERS)} for x64 or aa64",
        "install GRUB for EFI on the source (grub-install) and replicate again",
    )


def check(guest: Guest, wishes: Wishes, files: GuestFiles) -> list[Check]:
    if guest.layout.firmware is not Firmware.UEFI:
        return []
    found = _fallback(files, _esp(guest))
    if found is None or (files.read(found) or b"")[:2] != b"MZ":
        raise PostconditionFailed("no program is where the firmware looks for one, in EFI/BOOT of the ESP", REMEDY)
    return [Check("EFI fallback loader", found)]


def _esp(guest: Guest) -> str:
    for point, fs in guest.layout.mounts.items():
        if fs.kind == "vfat":
            return point.rstrip("/")
    raise UnsupportedGuest(
        "the machine boots by UEFI, and neither fstab nor a folder /boot/efi says where its ESP belongs",
        "mount it on /boot/efi on the source, with a line in fstab, and replicate again",
    )


def _fallback(files: GuestFiles, esp: str) -> str | None:
    names = {name for _, name in _ARCHITECTURES}
    for folder in _like(files, esp, "EFI"):
        for boot in _like(files, folder, "BOOT"):
            for name in files.names(boot):
                if name.upper() in names:
                    return f"{boot}/{name}"
    return None


def _found(files: GuestFiles, esp: str, wanted: str) -> Iterator[tuple[str, str]]:
    """In the folders of distributions: folder and name, whose letters may be of any case."""
    for efi in _like(files, esp, "EFI"):
        for vendor in files.names(efi):
            for name in files.names(f"{efi}/{vendor}"):
                if name.lower() == wanted:
                    yield f"{efi}/{vendor}", name


def _like(files: GuestFiles, folder: str, name: str) -> list[str]:
    return [f"{folder}/{each}" for each in files.names(folder) if each.upper() == name]


def _made(files: GuestFiles, esp: str) -> str:
    """EFI/BOOT, as far as it is there in its own letters."""
    efi = next(iter(_like(files, esp, "EFI")), f"{esp}/EFI")
    return next(iter(_like(files, efi, "BOOT")), f"{efi}/BOOT")


def _copy(draft: Draft, source: str, target: str) -> None:
    draft.write(target, draft.read(source) or b"", _REASON)
