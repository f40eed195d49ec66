"""Naming file systems by UUID where a guest names them by device letter: fstab and GRUB. Text in, text out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

# Names that change with the controller: sda1, hda1, vda1, xvda1.
_DEVICE = re.compile(r"^/dev/(?:sd|hd|vd|xvd)([a-z])(\d+)?$")
_FSTAB_LINE = re.compile(r"^(?P<lead>\s*)(?P<device>[^\s#]\S*)(?P<gap>\s+)(?P<point>\S+)(?P<rest>.*)$", re.S)
_ARGUMENT = re.compile(r"(?<![\w.])(?P<key>root|resume)=(?P<device>/dev/[\w/]+)")
_KERNEL_LINE = re.compile(r"^\s*linux(16|efi)?\s")
_CMDLINE = re.compile(r"^\s*GRUB_CMDLINE_LINUX(_DEFAULT|_RECOVERY)?=")
_DISABLE_UUID = re.compile(r"^(?P<key>\s*GRUB_DISABLE_LINUX_UUID=)(?P<quote>[\"']?)true(?P=quote)(?P<rest>\s*(#.*)?)$")
# Drives whose medium may be out: nothing waits for them.
_REMOVABLE = re.compile(r"^/dev/(?:sr|fd|cdrom|scd|floppy)")


@dataclass(frozen=True)
class Rewritten:
    """A text after the change, and what could not be changed, in words."""

    text: str
    warnings: tuple[str, ...] = ()


class Devices:
    """The UUIDs of the guest's file systems by the names that the guest gives them."""

    def __init__(self, uuids: Mapping[tuple[int, int], str]) -> None:
        """`uuids`: by number of the disk (from 0, the order in which the guest has them) and of the partition."""
        self._uuids = dict(uuids)

    def locate(self, name: str) -> tuple[int, int] | None:
        """Disk and partition (0: the whole disk) that a device letter stands for."""
        found = _DEVICE.match(name)
        return (ord(found[1]) - ord("a"), int(found[2] or 0)) if found else None

    def uuid(self, name: str) -> str | None:
        place = self.locate(name)
        return self._uuids.get(place) if place else None


def mount_points(fstab: str) -> dict[str, str]:
    """Device by mount point, as written."""
    found = {}
    for line in fstab.splitlines():
        match = _FSTAB_LINE.match(line)
        if match:
            found[match["point"]] = match["device"]
    return found


def rewrite_fstab(text: str, devices: Devices) -> Rewritten:
    """fstab with UUIDs; comments stay, and columns where the room between them allows it."""
    warnings: list[str] = []
    lines = []
    for line in text.splitlines(keepends=True):
        match = _FSTAB_LINE.match(line)
        if match is None or not match["device"].startswith("/dev/"):
            lines.append(line)
            continue
        uuid = devices.uuid(match["device"])
        if uuid is None:
            if devices.locate(match["device"]) and not _REMOVABLE.match(match["device"]):
                warnings.append(
                    f"fstab: {match['device']} ({match['point']}) is on none of the given disks and stays as it is"
                )
            lines.append(line)
            continue
        new = f"UUID={uuid}"
        gap = match["gap"]
        if set(gap) == {" "}:
            gap = " " * max(1, len(gap) + len(match["device"]) - len(new))
        lines.append(f"{match['lead']}{new}{gap}{match['point']}{match['rest']}")
    return Rewritten("".join(lines), tuple(warnings))


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


def rewrite_resume(text: str, devices: Devices) -> Rewritten:
    """initramfs-tools' conf.d/resume."""
    match = re.search(r"^RESUME=(/dev/\S+)", text, re.M)
    uuid = devices.uuid(match[1]) if match else None
    if match is None or uuid is None:
        return Rewritten(text)
    return Rewritten(text[: match.start(1)] + f"UUID={uuid}" + text[match.end(1) :])


def kernel_arguments(menu: str, key: str) -> list[str]:
    """The values of `key` on each line of grub.cfg that starts a kernel."""
    wanted = re.compile(rf"(?<![\w.]){re.escape(key)}=(\S+)")
    return [match[1] for line in menu.splitlines() if _KERNEL_LINE.match(line) for match in wanted.finditer(line)]


def _rewrite_arguments(text: str, devices: Devices, which: "re.Pattern[str]", where: str) -> Rewritten:
    warnings: list[str] = []

    def by_uuid(match: "re.Match[str]") -> str:
        uuid = devices.uuid(match["device"])
        if uuid is None:
            warnings.append(f"{where}: {match[0]} is on none of the given disks and stays as it is")
            return match[0]
        return f"{match['key']}=UUID={uuid}"

    lines = [_ARGUMENT.sub(by_uuid, line) if which.match(line) else line for line in text.splitlines(keepends=True)]
    return Rewritten("".join(lines), tuple(dict.fromkeys(warnings)))
