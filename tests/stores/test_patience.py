"""How often a store is asked again, and how long is waited."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wavelift.stores.base import NotThere, StoreError, Unavailable
from wavelift.stores.patience import LONGEST_PAUSE_SECONDS, Busy, Patience


def failing(*errors: StoreError) -> Callable[[int], int]:
    left = list(errors)

    def call(tries: int) -> int:
        if left:
            raise left.pop(0)
        return tries

    return call


def test_what_may_go_well_later_is_tried_again_with_growing_pauses() -> None:
    waited: list[float] = []
    patience = Patience(600, waited.append)
    assert patience(failing(*(Unavailable("gone") for _ in range(12)))) == 12
    assert waited[0] < 0.21 and sum(waited[:3]) < sum(waited[3:6]) and max(waited) <= LONGEST_PAUSE_SECONDS


def test_a_store_that_says_when_is_not_asked_before() -> None:
    waited: list[float] = []
    assert Patience(600, waited.append)(failing(Busy("slow down", "", 40.0))) == 1
    assert waited == [40.0]


def test_what_no_patience_helps_is_raised_at_once() -> None:
    waited: list[float] = []
    with pytest.raises(NotThere):
        Patience(600, waited.append)(failing(NotThere("s", "k")))
    assert waited == []


def test_patience_ends_with_the_last_error() -> None:
    waited: list[float] = []
    with pytest.raises(Busy, match="once more"):
        Patience(30, waited.append)(
            failing(Unavailable("gone"), Busy("once more", "", 40.0), Unavailable("never seen"))
        )
    assert len(waited) == 1
