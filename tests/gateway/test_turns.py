"""Whose packs may be written: never older content over newer."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from wavelift.blocks.attempts import attempt_of, first_sequence
from wavelift.blocks.taken import mark_of
from wavelift.gateway.owners import Owners
from wavelift.gateway.turns import StaleGeneration, Turns

FIRST = first_sequence()
LATER = first_sequence(FIRST)


def test_an_attempt_has_numbers_above_all_of_the_former_one() -> None:
    assert attempt_of(FIRST) < attempt_of(LATER) and attempt_of(FIRST) == attempt_of(FIRST + 10_000_000)
    # Also of one whose clock was ahead, and of one that was forgotten.
    assert first_sequence(FIRST << 2) > FIRST << 2
    assert attempt_of(first_sequence()) >= attempt_of(FIRST) and LATER < 1 << 50


@pytest.mark.parametrize(("generation", "sequence"), [(1, LATER), (2, FIRST)])
def test_a_stalled_pack_of_an_earlier_attempt_writes_nothing_more(
    tmp_path: Path, generation: int, sequence: int
) -> None:
    turns = Turns(Owners(tmp_path))
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


def test_a_later_attempt_waits_for_the_record_that_an_earlier_one_is_writing(tmp_path: Path) -> None:
    turns = Turns(Owners(tmp_path))
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


def test_who_wrote_last_outlives_a_restart_and_a_mixture_is_told(tmp_path: Path) -> None:
    def took(migration: str, generation: int) -> tuple[str, int, str]:
        turns = Turns(Owners(tmp_path))
        assert turns.taken("d-v1") == seen[-1]
        with turns.writing("d-v1", migration, generation, FIRST) as record:
            for _ in range(2):
                with record():
                    pass
        seen.append(turns.taken("v1"))
        return seen[-1]

    seen = [("", 0, "")]
    own = mark_of("web", 5, attempt_of(FIRST))
    assert took("web", 5) == took("web", 5) == ("web", 5, own)
    assert took("other", 3)[:2] == ("other", 3)
    assert took("web", 5)[2] != own and took("web", 5)[2] != own
    assert took("web", 6)[2] == mark_of("web", 6, attempt_of(FIRST))
    turns = Turns(Owners(tmp_path))
    turns.wrote_itself("d-v1")
    assert turns.taken("d-v1")[2] == "" == Turns(Owners(tmp_path)).taken("d-v1")[2]
