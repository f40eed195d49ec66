"""Files of sections and keys (keyfiles, units, ifcfg), changed line by line: what is not touched stays as it is."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_SECTION = re.compile(r"^\s*\[([^\]]+)\]\s*$")
_KEY = re.compile(r"^\s*([A-Za-z0-9_.-]+)\s*=\s*(.*?)\s*$")


def values(text: str, section: str, key: str) -> list[str]:
    """All of a key, in their order; of every section of that name."""
    return [value for at, name, value in _entries(text) if (at, name) == (section, key)]


def without(text: str, section: str, keys: Collection[str]) -> str:
    lines, at = [], ""
    for line in text.splitlines(keepends=True):
        found = _SECTION.match(line)
        at = found[1] if found else at
        named = _KEY.match(line)
        if found or at != section or named is None or named[1] not in keys:
            lines.append(line)
    return "".join(lines)


def extended(text: str, section: str, entries: Sequence[tuple[str, str]]) -> str:
    """The section's end, or a new section, has these keys too."""
    new = "".join(f"{key}={value}\n" for key, value in entries)
    if not new:
        return text
    lines = text.splitlines(keepends=True)
    at = [number for number, line in enumerate(lines) if (found := _SECTION.match(line)) and found[1] == section]
    if not at:
        return f"{text.rstrip()}\n\n[{section}]\n{new}" if text.strip() else f"[{section}]\n{new}"
    lines.insert(at[0] + 1, new)
    return "".join(lines)


def _entries(text: str) -> list[tuple[str, str, str]]:
    found, at = [], ""
    for line in text.splitlines():
        if section := _SECTION.match(line):
            at = section[1]
        elif (entry := _KEY.match(line)) and not line.lstrip().startswith(("#", ";")):
            found.append((at, entry[1], entry[2]))
    return found
