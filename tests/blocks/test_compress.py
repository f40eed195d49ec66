"""When records are compressed: what shrinks, while the link is what the copy waits for."""

from __future__ import annotations

import random

import pytest
import zstandard

from wavelift.blocks.compress import (
    FIRST_COST,
    MAX_LEVEL,
    PATIENCE,
    PAUSE,
    STRETCH,
    WINDOW_BYTES,
    Compression,
    Compressor,
    LinkGauge,
)
from wavelift.blocks.digest import BLOCK

from .conftest import TEXT

MIB = 1 << 20
NOISE = memoryview(random.Random(1).randbytes(MIB))
WORDS = memoryview(TEXT * 16)


def test_a_link_is_slow_when_compressing_would_save_more_time_than_it_takes() -> None:
    gauge = LinkGauge()
    assert gauge.slow
    for seconds, slow in ((WINDOW_BYTES / 2e9, False), (WINDOW_BYTES / 10e6, True), (WINDOW_BYTES / 2e9, False)):
        gauge.sent(WINDOW_BYTES, seconds)
        assert gauge.slow is slow
    # As the compressor itself gets slower, what was a slow link is no more one.
    middling = WINDOW_BYTES * FIRST_COST * 10
    gauge.sent(WINDOW_BYTES, middling)
    assert gauge.slow
    for _ in range(100):
        gauge.compressed(MIB, MIB * FIRST_COST * 20)
    gauge.sent(WINDOW_BYTES, middling)
    assert not gauge.slow


def test_a_fixed_level_is_used_whatever_the_link_and_none_never() -> None:
    fast = LinkGauge()
    fast.sent(WINDOW_BYTES, 0.0)
    packed = {level: Compressor(Compression(level), fast)(WORDS, 0, 0) for level in (1, 9, MAX_LEVEL)}
    for frame in packed.values():
        assert frame is not None and zstandard.decompress(frame) == WORDS
        # What a reader may refuse: docs/format.md.
        assert zstandard.get_frame_parameters(frame).window_size <= MIB
    assert Compressor(Compression.AUTO, fast)(WORDS, 0, 0) is None
    assert Compressor(Compression.AUTO, LinkGauge())(WORDS, 0, 0) is not None
    assert Compressor(Compression.NEVER, LinkGauge())(WORDS, 0, 0) is None
    for level in (0, MAX_LEVEL + 1):
        with pytest.raises(ValueError, match=str(level)):
            Compression(level)


def test_a_stretch_that_does_not_shrink_is_seldom_tried_and_the_next_one_is() -> None:
    compress = Compressor(Compression(1), LinkGauge())
    assert compress(NOISE, 0, 0) is None
    tried = [at for at in range(MIB, STRETCH, MIB) if compress(WORDS, 0, at) is not None]
    # The one that is tried shrinks, and from there on all are.
    assert tried == list(range(MIB + PAUSE, STRETCH, MIB))
    assert compress(NOISE, 0, STRETCH) is None
    assert compress(WORDS, 0, STRETCH + MIB) is None
    assert compress(WORDS, 0, 2 * STRETCH) is not None
    assert compress(NOISE, 0, 2 * STRETCH + MIB) is None
    assert compress(WORDS, 1, 2 * STRETCH + MIB) is not None


def test_small_records_that_do_not_shrink_say_little_of_a_stretch() -> None:
    compress = Compressor(Compression(1), LinkGauge())
    for at in range(0, PATIENCE - BLOCK, BLOCK):
        assert compress(NOISE[:BLOCK], 0, at) is None
    assert compress(WORDS, 0, PATIENCE) is not None


def test_what_shrinks_too_little_is_left_as_it_is() -> None:
    mixed = memoryview(bytes(NOISE[: MIB - MIB // 20]) + bytes(MIB // 20))
    assert Compressor(Compression(1), LinkGauge())(mixed, 0, 0) is None
