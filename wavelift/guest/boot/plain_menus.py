"""extlinux and syslinux, and GRUB legacy: menus of plain lines. Both find their menu by where it lies on the disk."""

from __future__ import annotations

import re

from wavelift.guest.boot import arguments
from wavelift.guest.draft import Draft
from wavelift.guest.facts import Guest
from wavelift.guest.files import GuestFiles, text_of

NAME = "extlinux or GRUB legacy"
_FOLDERS = (
    "/boot/extlinux",
    "/extlinux",
    "/boot/syslinux",
    "/syslinux",
    "/boot/efi/EFI/syslinux",
    "/boot/efi/syslinux",
)
_CONF = re.compile(r"\.(conf|cfg)$")
_LEGACY = ("/boot/grub/menu.lst", "/boot/grub/grub.conf")
_LINES = {
    "append": re.compile(r"^\s*append\s", re.I),
    "kernel": re.compile(r"^\s*kernel\s"),
    # Debian's: the arguments that update-grub makes its lines of.
    "kopt": re.compile(r"^(\s*kernel\s|#\s*kopt=)"),
}
_EXTLINUX_DEFAULTS = "/etc/default/extlinux"


def menus(files: GuestFiles) -> list[str]:
    found = [f"{folder}/{name}" for folder in _FOLDERS for name in files.names(folder) if _CONF.search(name)]
    # One of them is a link to the other.
    legacy = [path for path in _LEGACY if files.read(path) is not None and files.link(path) is None]
    return [*found, *legacy]


def plan(guest: Guest, draft: Draft) -> None:
    for path in menus(draft):
        which = _LINES["kopt" if path in _LEGACY else "append"]
        changed = arguments.rewrite_lines(draft.text(path) or "", guest.devices, which, path)
        draft.write(path, changed.text, "root= and resume= by UUID, consoles")
        for warning in changed.warnings:
            draft.warn(warning)
    if (text := draft.text(_EXTLINUX_DEFAULTS)) is not None:
        which = re.compile(r"^\s*EXTLINUX_(ROOT|PARAMETERS)=")
        lines = [
            arguments.by_uuid(line, guest.devices).text if which.match(line) else line
            for line in text.splitlines(keepends=True)
        ]
        draft.write(_EXTLINUX_DEFAULTS, "".join(lines), "the next menu is made with UUIDs")


def lines(files: GuestFiles) -> list[str]:
    found = []
    for path in menus(files):
        text = text_of(files, path)
        which = _LINES["kernel" if path in _LEGACY else "append"]
        found += [line for line in text.splitlines() if which.match(line)]
    return found
