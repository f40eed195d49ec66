"""Whose packs may be written: never older content over newer."""

from __future__ import annotations

import threading

import pytest

from wavelift.blocks.attempts import attempt_of, first_sequence
from wavelift.gateway.turns import StaleGeneration, Turns

FIRST = first_sequence()
LATER = first_sequence(FIRST)


def test_an_attempt_has_numbers_above_all_of_the_former_one() -> None:
    assert attempt_of(FIRST) < attempt_of(LATER) and attempt_of(FIRST) == attempt_of(FIRST + 10_000_000)
    # Also of one whose clock was ahead, and of one that was forgotten.
    assert first_sequence(FIRST << 2) > FIRST << 2
    assert attempt_of(first_sequence()) >= attempt_of(FIRST) and LATER < 1 << 50


@pytest.mark.parametrize(("generation", "sequence"), [(1, LATER), (2, FIRST)])
def test_a_stalled_pack_of_an_earlier_attempt_writes_nothing_more(generation: int, sequence: int) -> None:
    turns = Turns()
    with turns.writing("d-v1", "web", 1, FIRST + 7) as stalled:
        with stalled():
            pass
        with turns.writing("d-v1", "web", generation, sequence):
            pass
        with pytest.raises(StaleGeneration, match="attempt"), stalled():
            raise AssertionError("it would have been written")
    with pytest.raises(StaleGeneration), turns.writing("v1", "web", 1, FIRST):
        raise AssertionError("it was let in")
    # Of the attempt that counts, and of others, all may write.
    with turns.writing("d-v1", "web", generation, sequence + 1) as record, record():
        pass
    with turns.writing("d-v1", "other", 1, 1) as record, record():
        pass


def test_a_later_attempt_waits_for_the_record_that_an_earlier_one_is_writing() -> None:
    turns = Turns()
    began = threading.Event()

    def later() -> None:
        with turns.writing("d-v1", "web", 1, LATER):
            began.set()

    with turns.writing("d-v1", "web", 1, FIRST) as record:
        with record():
            thread = threading.Thread(target=later)
            thread.start()
            assert not began.wait(0.2)
        assert began.wait(20)
    thread.join()
