"""GRUB 2: root= and resume= by UUID in its menu, and in what the next menu is made of."""

from __future__ import annotations

import re

from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed, UnsupportedGuest
from wavelift.guest.evidence import REMEDY, Check
from wavelift.guest.facts import Devices, Guest
from wavelift.guest.files import GuestFiles
from wavelift.guest.rewritten import Rewritten
from wavelift.guest.wishes import Wishes

MENUS = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg")
DEFAULTS = "/etc/default/grub"
_ARGUMENT = re.compile(r"(?<![\w.])(?P<key>root|resume)=(?P<device>/dev/[\w/]+)")
_KERNEL_LINE = re.compile(r"^\s*linux(16|efi)?\s")
_CMDLINE = re.compile(r"^\s*GRUB_CMDLINE_LINUX(_DEFAULT|_RECOVERY)?=")
_DISABLE_UUID = re.compile(r"^(?P<key>\s*GRUB_DISABLE_LINUX_UUID=)(?P<quote>[\"']?)true(?P=quote)(?P<rest>\s*(#.*)?)$")


def plan(guest: Guest, wishes: Wishes, draft: Draft) -> None:
    menu = _menu(draft)
    for path, rewrite, reason in (
        (menu, rewrite_menu, "root= and resume= by UUID"),
        (DEFAULTS, rewrite_defaults, "the next update-grub writes UUIDs"),
    ):
        text = draft.text(path)
        if text is None:
            continue
        rewritten = rewrite(text, guest.devices)
        draft.write(path, rewritten.text, reason)
        for warning in rewritten.warnings:
            draft.warn(warning)


def check(guest: Guest, wishes: Wishes, files: GuestFiles) -> list[Check]:
    menu = _menu(files)
    roots = kernel_arguments((files.read(menu) or b"").decode("utf-8", "surrogateescape"), "root")
    wrong = [value for value in roots if value != f"UUID={guest.root.uuid}" and not value.startswith("$")]
    if not roots or wrong:
        raise PostconditionFailed(f"{menu}: root= is {', '.join(wrong) or 'missing'}", REMEDY)
    return [Check("root by UUID", f"{len(roots)} entries of {menu}: root=UUID={guest.root.uuid}")]


def _menu(files: GuestFiles) -> str:
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
    return menu


def rewrite_menu(text: str, devices: Devices) -> Rewritten:
    """grub.cfg with root= and resume= by UUID on the lines that start a kernel."""
    return _rewrite_arguments(text, devices, _KERNEL_LINE, "grub.cfg")


def rewrite_defaults(text: str, devices: Devices) -> Rewritten:
    """/etc/default/grub such that the next update-grub writes UUIDs too."""
    changed = _rewrite_arguments(text, devices, _CMDLINE, "/etc/default/grub")
    lines = []
    for line in changed.text.splitlines(keepends=True):
        body = line.rstrip("\n")
        lines.append(_DISABLE_UUID.sub(r"\g<key>\g<quote>false\g<quote>\g<rest>", body) + line[len(body) :])
    return Rewritten("".join(lines), changed.warnings)


def kernel_arguments(menu: str, key: str) -> list[str]:
    """The values of `key` on each line of grub.cfg that starts a kernel."""
    wanted = re.compile(rf"(?<![\w.]){re.escape(key)}=(\S+)")
    return [match[1] for line in menu.splitlines() if _KERNEL_LINE.match(line) for match in wanted.finditer(line)]


def _rewrite_arguments(text: str, devices: Devices, which: re.Pattern[str], where: str) -> Rewritten:
    warnings: list[str] = []

    def by_uuid(match: re.Match[str]) -> str:
        uuid = devices.uuid(match["device"])
        if uuid is None:
            warnings.append(f"{where}: {match[0]} is on none of the given disks and stays as it is")
            return match[0]
        return f"{match['key']}=UUID={uuid}"

    lines = [_ARGUMENT.sub(by_uuid, line) if which.match(line) else line for line in text.splitlines(keepends=True)]
    return Rewritten("".join(lines), tuple(dict.fromkeys(warnings)))
