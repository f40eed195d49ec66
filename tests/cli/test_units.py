"""Sizes and times as people read them."""

from __future__ import annotations

import pytest

from wavelift.cli.units import duration, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1023 * 1024, "1.0 MiB"),
        (99 * 1024, "99.0 KiB"),
        (120 << 20, "120 MiB"),
        (int(1.5 * (1 << 30)), "1.5 GiB"),
        (16 << 40, "16.0 TiB"),
        (1 << 50, "1.0 PiB"),
        (5000 << 50, "5000 PiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1:00"), (187, "3:07"), (7387, "2:03:07")],
)
def test_times(seconds: float, text: str) -> None:
    assert duration(seconds) == text
