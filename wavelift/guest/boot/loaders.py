"""The boot loader tells the kernel of the root by a name that holds on the target, whatever loader it is."""

from __future__ import annotations

from typing import Protocol

from wavelift.guest.boot import arguments, grub, plain_menus, systemd_boot
from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed, UnsupportedGuest
from wavelift.guest.evidence import REMEDY, Check
from wavelift.guest.facts import Devices, Guest
from wavelift.guest.files import GuestFiles
from wavelift.manifest.wishes import Wishes


class Loader(Protocol):
    """A module for one boot loader."""

    NAME: str

    def menus(self, files: GuestFiles) -> list[str]:
        """The files it is configured by; none where the guest does not use it."""

    def plan(self, guest: Guest, draft: Draft) -> None: ...

    def lines(self, files: GuestFiles) -> list[str]:
        """Those of its menus that have kernel arguments."""


LOADERS: tuple[Loader, ...] = (grub, plain_menus, systemd_boot)


def plan(guest: Guest, wishes: Wishes, draft: Draft) -> None:
    found = [loader for loader in LOADERS if loader.menus(draft)]
    if not found:
        known = ", ".join(loader.NAME for loader in LOADERS)
        raise UnsupportedGuest(
            f"the guest has a boot loader that is not known: there is no menu of {known}",
            "see that fstab has /boot if that is a file system of its own; or install GRUB 2, and replicate again",
        )
    for loader in found:
        loader.plan(guest, draft)


def check(guest: Guest, wishes: Wishes, files: GuestFiles) -> list[Check]:
    lines = [line for loader in LOADERS for line in loader.lines(files)]
    roots = arguments.values(lines, "root")
    wrong = [value for value in roots if Devices.changes(value)]
    if not roots or wrong:
        raise PostconditionFailed(f"root= of the boot loader is {', '.join(wrong) or 'missing'}", REMEDY)
    deaf = [line.strip() for line in lines if "root=" in line and arguments.with_consoles(line) != line]
    if deaf:
        raise PostconditionFailed(f"no serial console: {deaf[0]}", REMEDY)
    shown = ", ".join(dict.fromkeys(roots))
    return [Check("root by a name that stays", f"{len(roots)} menu lines: {shown}")]
