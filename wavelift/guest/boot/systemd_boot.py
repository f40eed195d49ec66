"""systemd-boot: entries on the ESP, or beside the kernels. See the Boot Loader Specification."""

from __future__ import annotations

import re

from wavelift.guest.boot import arguments
from wavelift.guest.draft import Draft
from wavelift.guest.facts import Guest
from wavelift.guest.files import GuestFiles, text_of

NAME = "systemd-boot"
_PLACES = ("/boot/efi", "/efi", "/boot")
_OPTIONS = re.compile(r"^\s*options\s")
_CMDLINE = "/etc/kernel/cmdline"


def menus(files: GuestFiles) -> list[str]:
    """Where its own configuration is: GRUB reads entries of the same form."""
    found = []
    for place in _PLACES:
        if files.read(f"{place}/loader/loader.conf") is not None:
            names = [name for name in files.names(f"{place}/loader/entries") if name.endswith(".conf")]
            found += [f"{place}/loader/entries/{name}" for name in names]
    return found


def plan(guest: Guest, draft: Draft) -> None:
    for path, which in [*((path, _OPTIONS) for path in menus(draft)), (_CMDLINE, re.compile(r"\s*\S"))]:
        if (text := draft.text(path)) is not None and menus(draft):
            changed = arguments.rewrite_lines(text, guest.devices, which, path)
            draft.write(path, changed.text, "root= and resume= by UUID, consoles")
            for warning in changed.warnings:
                draft.warn(warning)


def lines(files: GuestFiles) -> list[str]:
    texts = (text_of(files, path) for path in menus(files))
    return [line for text in texts for line in text.splitlines() if _OPTIONS.match(line)]
