"""Rates of the wire as a person writes them."""

from __future__ import annotations

import re
from fractions import Fraction

from wavelift.blocks.errors import BlockError

# Slower than this a pack takes hours, which is no limit but a stop.
SLOWEST = 1000
# "Mb" is left out: it means bits to some and bytes to others.
_RATE = re.compile(r"^(\d+(?:\.\d+)?) ?([KkMmGg]i?)?(?:(B|B/s|Bps|/s)?|([Bb]it|[Bb]it/s|bps))$", re.ASCII)
_PREFIX = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


class InvalidRate(BlockError, ValueError):
    """`text` is no rate."""

    default_code = "invalid_rate"

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(
            f"{text!r} is no rate.",
            f"Write bytes per second (50M, 50MB/s, 50MiB/s) or bits (400mbit), at least {SLOWEST} bytes per second.",
        )


def parse_rate(text: str) -> int:
    """Bytes per second of `50M`, `50MB/s`, `50MiB/s`, `400mbit`; K, M and G are powers of ten, Ki, Mi, Gi of two.

    Raises `InvalidRate`.
    """
    found = _RATE.match(text.strip())
    if found is None:
        raise InvalidRate(text)
    exact = Fraction(found[1]) * _PREFIX[(found[2] or "").lower()]
    rate = int(exact / 8 if found[4] else exact)
    if rate < SLOWEST:
        raise InvalidRate(text)
    return rate


def rate_text(rate: float) -> str:
    """`50 MB/s`: a rate in bytes per second for a person."""
    for unit, size in (("GB/s", 1e9), ("MB/s", 1e6), ("KB/s", 1e3)):
        if rate >= size:
            return f"{rate / size:.4g} {unit}"
    return f"{rate:.0f} B/s"
