"""Rates as people write them."""

from __future__ import annotations

import pytest

from wavelift.blocks.rate import InvalidRate, parse_rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("50M", 50_000_000),
        ("50MB/s", 50_000_000),
        ("50 MBps", 50_000_000),
        ("50m/s", 50_000_000),
        ("1.5GiB/s", 3 << 29),
        ("64K", 64_000),
        ("64KiB", 65_536),
        ("400mbit", 50_000_000),
        ("400Mbit/s", 50_000_000),
        ("1gbps", 125_000_000),
        ("2000", 2000),
        ("0.1M", 100_000),
        (" 8kbit ", 1000),
    ],
)
def test_a_rate_is_bytes_per_second(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


NO_RATES = ["", "fast", "-5M", "50Mb/s", "5X", "M", "0", "999", "7kbit", "1e6", "50MB/h", "\u0665M"]


@pytest.mark.parametrize("text", NO_RATES)
def test_what_is_no_rate_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InvalidRate) as refused:
        parse_rate(text)
    assert repr(text) in refused.value.message
    assert "400mbit" in refused.value.remedy
