"""How often a store is asked again, and how long is waited."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from wavelift.stores.base import NotThere, StoreError, Unavailable
from wavelift.stores.patience import LONGEST_PAUSE_SECONDS, Busy, Patience, Stopped


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


def test_who_is_told_to_end_asks_no_more_and_waits_for_no_answer() -> None:
    """The thread that asks would wait for minutes; the one that wanted to know goes on."""
    stop, asked, answer = threading.Event(), threading.Event(), threading.Event()

    def silent(_: int) -> bool:
        asked.set()
        return answer.wait(60)

    found: list[BaseException] = []

    def caller() -> None:
        try:
            Patience(600, stop=stop)(silent)
        except Stopped as error:
            found.append(error)

    thread = threading.Thread(target=caller)
    thread.start()
    assert asked.wait(20)
    stop.set()
    thread.join(20)
    assert found and not answer.is_set()
    answer.set()
    with pytest.raises(Stopped) as caught:
        Patience(600, stop=stop)(failing(Unavailable("no answer")))
    assert isinstance(caught.value.__cause__, Unavailable) and caught.value.remedy


def test_what_is_told_to_end_may_say_that_it_has() -> None:
    """A lock is taken away, say."""
    stop = threading.Event()
    assert Patience(600, stop=stop)(failing()) == 0
    stop.set()
    assert Patience(600, stop=stop)(failing()) == 0
    with pytest.raises(NotThere):
        Patience(600, stop=stop)(failing(NotThere("s", "k")))
