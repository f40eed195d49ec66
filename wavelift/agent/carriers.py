"""What a disk's generations go to, by the name that packs and state have for it: a volume, or an archive.

What is put to an archive changes nothing of what lies there already, and what was put for a generation that never came
to be does not count. A volume holds whatever was written to it last.
"""

from __future__ import annotations

from collections.abc import Iterable

_AT_REST = "archive:"


def archive_name(identity: str) -> str:
    """By the archive's own id, wherever it is moved to."""
    return f"{_AT_REST}{identity}"


def at_rest(volume: str) -> bool:
    return volume.startswith(_AT_REST)


def all_at_rest(volumes: Iterable[str]) -> bool:
    return all(at_rest(volume) for volume in volumes)


def another_volume(before: str | None, now: str) -> bool:
    """Whether a base on `before` says nothing of `now`. Between a volume and an archive, or two archives, who orders
    the copy says what builds on what: it is proven by roots where the volume is filled."""
    return before is None or (before != now and not at_rest(before) and not at_rest(now))
