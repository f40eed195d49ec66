"""Bytes, rates and times as people read them."""

from __future__ import annotations

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: float) -> str:
    """12 B, 1.5 KiB, 120 MiB, 1.0 GiB."""
    if count < 1024:
        return f"{int(count)} B"
    power = 0
    while count >= 999.5 and power < len(_UNITS):
        count /= 1024
        power += 1
    return f"{count:.0f} {_UNITS[power - 1]}" if count >= 99.95 else f"{count:.1f} {_UNITS[power - 1]}"


def duration(seconds: float) -> str:
    """0.3 s, 42 s, 3:07, 2:03:07."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
