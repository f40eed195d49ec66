"""fstab(5): what is mounted where."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Entry:
    """`device` as written, without quotes: a path, or UUID=, LABEL=, PARTUUID=, PARTLABEL=. `point` is "none" or "swap"
    for swap space."""

    device: str
    point: str
    kind: str
    options: str


def entries(fstab: str) -> list[Entry]:
    """Those that can be read; a later one of the same point stands over the earlier, as it does for mount(8)."""
    found = []
    for line in fstab.splitlines():
        fields = [_unescaped(field) for field in line.split()]
        if len(fields) >= 2 and not fields[0].startswith("#"):
            kind, options = [*fields[2:4], "auto", "defaults"][:2] if len(fields) != 3 else [fields[2], "defaults"]
            found.append(Entry(fields[0].replace('"', ""), fields[1].rstrip("/") or "/", kind, options))
    return found


def _unescaped(field: str) -> str:
    """Blanks are written as octal numbers."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), field)
