"""Kernel arguments: root= and resume= by UUID, and consoles that a cloud can show."""

from __future__ import annotations

import re
from collections.abc import Iterable

from wavelift.guest.facts import Devices
from wavelift.guest.rewritten import Rewritten

CONSOLES = ("console=tty0", "console=ttyS0,115200")
_NAMED = re.compile(r"(?<![\w.-])(?P<key>root|resume)=(?P<device>/dev/[^\s\"']+)")
_ASSIGNED = re.compile(r"^\s*set\s+\w+=\".*\"$")
_SERIAL = re.compile(r"(?<![\w.-])console=ttyS\d")


def by_uuid(line: str, devices: Devices) -> Rewritten:
    """Names that the move changes. A root that is on none of the disks is for `check` to find."""
    warnings = []

    def replaced(match: re.Match[str]) -> str:
        uuid = devices.uuid(match["device"])
        if uuid is None:
            if Devices.changes(match["device"]):
                warnings.append(f"{match[0]} is on none of the given disks and stays as it is")
            return match[0]
        return f"{match['key']}=UUID={uuid}"

    return Rewritten(_NAMED.sub(replaced, line), tuple(warnings))


def with_consoles(line: str) -> str:
    """The line, to whose end both are added where it has no serial one. The last one gets what init says."""
    body = line.rstrip()
    if has_serial(body) or not body:
        return line
    if _ASSIGNED.match(body):
        # The quotes around the value end the line.
        body = body[:-1]
    missing = [console for console in CONSOLES if not re.search(rf"(?<!\S){console.split(',')[0]}(?=[,\s]|$)", body)]
    return f"{body} {' '.join(missing)}{line[len(body) :]}"


def has_serial(line: str) -> bool:
    return _SERIAL.search(line) is not None


def values(lines: Iterable[str], key: str) -> list[str]:
    wanted = re.compile(rf"(?<![\w.-]){re.escape(key)}=([^\s\"']+)")
    return [match[1] for line in lines for match in wanted.finditer(line)]


def rewrite_lines(text: str, devices: Devices, which: re.Pattern[str], where: str) -> Rewritten:
    """The text whose lines of kernel arguments, those that match `which`, are as they have to be."""
    warnings: list[str] = []
    lines = []
    for line in text.splitlines(keepends=True):
        if which.match(line):
            changed = by_uuid(line, devices)
            warnings += [f"{where}: {warning}" for warning in changed.warnings]
            # Others are of memory tests, or refer to where the arguments are.
            line = with_consoles(changed.text) if "root=" in line else changed.text
        lines.append(line)
    return Rewritten("".join(lines), tuple(dict.fromkeys(warnings)))
