"""GRUB 2, for BIOS and UEFI: root= and resume= by UUID and consoles, in its menus and in what the next one is made of.

Menus are grub.cfg, of which an ESP may have one too, entries of the Boot Loader Specification (Red Hat's 8 and later)
and the variable kernelopts that these may refer to, in a block of 1024 bytes (grubenv).
"""

from __future__ import annotations

import re

from wavelift.guest.boot import arguments
from wavelift.guest.draft import Draft
from wavelift.guest.facts import Devices, Guest
from wavelift.guest.files import GuestFiles, text_of
from wavelift.guest.rewritten import Rewritten

NAME = "GRUB 2"
DEFAULTS = "/etc/default/grub"
ENTRIES = "/boot/loader/entries"
_FOLDERS = ("/boot/grub", "/boot/grub2")
_ESP = "/boot/efi/EFI"
# Where the kernel's own hooks take arguments from.
_CMDLINES = ("/etc/kernel/cmdline",)
_LINUX = re.compile(r"^\s*linux(16|efi)?\s")
_KERNELOPTS = re.compile(r"^\s*set\s+kernelopts=")
_OPTIONS = re.compile(r"^\s*options\s")
_CMDLINE = re.compile(r"^\s*GRUB_CMDLINE_LINUX(_DEFAULT|_RECOVERY)?=")
_PLAIN_CMDLINE = re.compile(r"^\s*GRUB_CMDLINE_LINUX=(?P<quote>[\"']?)(?P<value>.*?)(?P=quote)\s*$")
_DISABLE_UUID = re.compile(r"^(?P<key>\s*GRUB_DISABLE_LINUX_UUID=)(?P<quote>[\"']?)true(?P=quote)(?P<rest>\s*(#.*)?)$")
_BLOCK = 1024


def menus(files: GuestFiles) -> list[str]:
    """All of them, and entries beside them."""
    on_esp = [f"{_ESP}/{name}" for name in files.names(_ESP)]
    found = [f"{folder}/grub.cfg" for folder in (*_FOLDERS, *on_esp) if files.read(f"{folder}/grub.cfg") is not None]
    if not found:
        return []
    return [*found, *(f"{ENTRIES}/{name}" for name in files.names(ENTRIES) if name.endswith(".conf"))]


def plan(guest: Guest, draft: Draft) -> None:
    for path in menus(draft):
        which = _OPTIONS if path.startswith(f"{ENTRIES}/") else re.compile(f"{_LINUX.pattern}|{_KERNELOPTS.pattern}")
        _write(draft, path, arguments.rewrite_lines(draft.text(path) or "", guest.devices, which, path))
    for folder in _FOLDERS:
        _plan_block(guest, draft, f"{folder}/grubenv")
        if draft.read(f"{folder}/device.map") is not None:
            draft.remove(f"{folder}/device.map", "it names disks of the source; GRUB's tools find them without")
    if (defaults := draft.text(DEFAULTS)) is not None:
        _write(
            draft, DEFAULTS, rewrite_defaults(defaults, guest.devices), "the next menu is made with UUIDs and consoles"
        )
    for path in _CMDLINES:
        if (text := draft.text(path)) is not None:
            _write(draft, path, arguments.rewrite_lines(text, guest.devices, re.compile(r"\s*\S"), path))


def lines(files: GuestFiles) -> list[str]:
    """Those with kernel arguments."""
    found = []
    for path in menus(files):
        text = text_of(files, path)
        which = _OPTIONS if path.startswith(f"{ENTRIES}/") else _LINUX
        found += [line for line in text.splitlines() if which.match(line)]
    blocks = [_variables(files.read(f"{folder}/grubenv") or b"") for folder in _FOLDERS]
    return [*found, *(block["kernelopts"] for block in blocks if "kernelopts" in block)]


def rewrite_defaults(text: str, devices: Devices) -> Rewritten:
    """/etc/default/grub. Only the arguments of all kernels get consoles, and once."""
    done = []
    warnings: tuple[str, ...] = ()
    serial = any(arguments.has_serial(line) for line in text.splitlines() if _CMDLINE.match(line))
    for line in text.splitlines(keepends=True):
        body = line.rstrip("\n")
        end = line[len(body) :]
        body = _DISABLE_UUID.sub(r"\g<key>\g<quote>false\g<quote>\g<rest>", body)
        if _CMDLINE.match(body):
            changed = arguments.by_uuid(body, devices)
            body, warnings = changed.text, warnings + changed.warnings
        if not serial and (plain := _PLAIN_CMDLINE.match(body)):
            value = f"{plain['value']} {' '.join(arguments.CONSOLES)}".strip()
            body = f'GRUB_CMDLINE_LINUX="{value}"'
        done.append(body + end)
    return Rewritten("".join(done), tuple(f"{DEFAULTS}: {warning}" for warning in dict.fromkeys(warnings)))


def _plan_block(guest: Guest, draft: Draft, path: str) -> None:
    content = draft.read(path)
    if content is None or "kernelopts" not in _variables(content):
        return
    text = content.decode("utf-8", "surrogateescape")
    changed = arguments.rewrite_lines(text, guest.devices, re.compile(r"^kernelopts="), path)
    body = changed.text.rstrip("#").encode("utf-8", "surrogateescape")
    if len(body) > _BLOCK:
        draft.warn(f"{path} has no room for consoles and UUIDs and stays as it is")
        return
    _write(draft, path, Rewritten((body + b"#" * (_BLOCK - len(body))).decode("utf-8", "surrogateescape")))


def _variables(block: bytes) -> dict[str, str]:
    text = block.decode("utf-8", "surrogateescape")
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, found, value in pairs if found}


def _write(draft: Draft, path: str, changed: Rewritten, reason: str = "root= and resume= by UUID, consoles") -> None:
    draft.write(path, changed.text, reason)
    for warning in changed.warnings:
        draft.warn(warning)
