"""Sequence numbers of packs: those of a later attempt at a generation are higher.

An attempt sees the source at a moment of its own. A pack of an earlier one that was held up on its way must not be
written over what a later one brought, so a receiver refuses it.
"""

from __future__ import annotations

import time

PACKS = 1 << 24
_BEGAN = 1_577_836_800  # 2020


def first_sequence(former: int | None = None) -> int:
    """Of a new attempt; `former` is the first of the one before. Minutes, so that numbers grow even where the former
    one was forgotten; within the 50 bits of a sequence number until 2147."""
    now = int(time.time() - _BEGAN) // 60
    return max(now, 0 if former is None else attempt_of(former) + 1) * PACKS + 1


def attempt_of(sequence: int) -> int:
    return sequence // PACKS
