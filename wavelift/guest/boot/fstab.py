"""/etc/fstab: file systems by UUID where it names them by letter, which changes with the controller."""

from __future__ import annotations

import re

from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed, UnsupportedGuest
from wavelift.guest.evidence import REMEDY, Check
from wavelift.guest.facts import Devices, Guest
from wavelift.guest.files import GuestFiles, text_of
from wavelift.guest.rewritten import Rewritten
from wavelift.manifest.wishes import Wishes

FSTAB = "/etc/fstab"
_LINE = re.compile(r"^(?P<lead>\s*)(?P<device>[^\s#]\S*)(?P<gap>\s+)(?P<point>\S+)(?P<rest>.*)$", re.S)
# Drives whose medium may be out: nothing waits for them.
_REMOVABLE = re.compile(r"^/dev/(?:sr|fd|cdrom|scd|floppy)")


def plan(guest: Guest, wishes: Wishes, draft: Draft) -> None:
    text = draft.text(FSTAB)
    if text is None:
        return
    _check_order(text, guest)
    rewritten = rewrite_fstab(text, guest.devices)
    draft.write(FSTAB, rewritten.text, "file systems by UUID")
    for warning in rewritten.warnings:
        draft.warn(warning)


def check(guest: Guest, wishes: Wishes, files: GuestFiles) -> list[Check]:
    points = mount_points(text_of(files, FSTAB))
    wrong = [f"{point} ({device})" for point, device in points.items() if guest.devices.uuid(device)]
    if wrong:
        raise PostconditionFailed(f"fstab still names by device: {', '.join(wrong)}", REMEDY)
    shown = ", ".join(f"{point} {device}" for point, device in points.items() if device.startswith("UUID="))
    return [Check("fstab by UUID", shown or "no file system of the given disks")]


def _check_order(text: str, guest: Guest) -> None:
    """Letters are only worth something if the disks were given in the guest's own order."""
    named = mount_points(text).get("/")
    place = guest.devices.locate(named) if named else None
    if place is not None and guest.root.place is not None and place != guest.root.place:
        disk, partition = guest.root.place
        raise UnsupportedGuest(
            f"fstab says that / is {named}, and it is on partition {partition} of the disk given as number {disk + 1}",
            "give the disks in the order in which the source has them, the boot disk first",
        )


def mount_points(fstab: str) -> dict[str, str]:
    """Device by mount point, as written."""
    found = {}
    for line in fstab.splitlines():
        match = _LINE.match(line)
        if match:
            found[match["point"]] = match["device"]
    return found


def rewrite_fstab(text: str, devices: Devices) -> Rewritten:
    """fstab with UUIDs; comments stay, and columns where the room between them allows it."""
    warnings: list[str] = []
    lines = []
    for line in text.splitlines(keepends=True):
        match = _LINE.match(line)
        if match is None or not match["device"].startswith("/dev/"):
            lines.append(line)
            continue
        uuid = devices.uuid(match["device"])
        if uuid is None:
            if Devices.changes(match["device"]) and not _REMOVABLE.match(match["device"]):
                warnings.append(
                    f"fstab: {match['device']} ({match['point']}) is on none of the given disks; nothing waits for it"
                )
                line = _optional(line)
            lines.append(line)
            continue
        new = f"UUID={uuid}"
        gap = match["gap"]
        if set(gap) == {" "}:
            gap = " " * max(1, len(gap) + len(match["device"]) - len(new))
        lines.append(f"{match['lead']}{new}{gap}{match['point']}{match['rest']}")
    return Rewritten("".join(lines), tuple(warnings))


def _optional(line: str) -> str:
    """With the option nofail: what is not there holds up no boot."""
    fields = re.match(r"^(\s*\S+\s+\S+\s+\S+\s+)(\S+)(.*)$", line, re.S)
    if fields is None or {"nofail", "noauto"} & set(fields[2].split(",")):
        return line
    return f"{fields[1]}{fields[2]},nofail{fields[3]}"
