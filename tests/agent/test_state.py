"""What a commit does to a migration's folder, also late, twice, or cut short."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from wavelift.agent.journal import encode_line
from wavelift.agent.state import MigrationState
from wavelift.service.errors import NotFound


def begun(state: MigrationState, *generations: int) -> None:
    for generation in generations:
        state.work(generation).mkdir(parents=True)
        state.journal(generation).write_bytes(encode_line({"base": None}))


def finished(state: MigrationState, generation: int) -> None:
    begun(state, generation)
    state.finished(generation, {"root": "00"}, {"sda": "d-v1"}, {"sda": "moment"})


def test_a_late_commit_of_an_older_generation_changes_nothing(tmp_path: Path) -> None:
    state = MigrationState(tmp_path, "web")
    with pytest.raises(NotFound):
        state.commit(2)
    for generation in (1, 2):
        finished(state, generation)
    assert state.commit(2).generation == 2
    assert [state.commit(generation).generation for generation in (1, 2)] == [2, 2]
    committed = state.committed()
    assert committed is not None and (committed.generation, committed.volumes) == (2, {"sda": "d-v1"})
    assert committed.tokens == {"sda": "moment"}
    with pytest.raises(NotFound):
        state.commit(9)


@pytest.mark.parametrize("crash_at", [1, 2])
def test_a_commit_cut_short_leaves_a_base_that_can_be_used_or_a_commit_to_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    state = MigrationState(tmp_path, "web")
    begun(state, 1)
    finished(state, 2)
    calls = 0
    real = shutil.rmtree

    def crash(path: Path, ignore_errors: bool = False) -> None:
        nonlocal calls
        calls += 1
        if calls == crash_at:
            raise KeyboardInterrupt
        real(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", crash)
    with pytest.raises(KeyboardInterrupt):
        state.commit(2)
    monkeypatch.undo()
    if state.committed() is None:
        assert state.touched(), "nothing is committed, so the volumes are unsure"
    assert state.commit(2).generation == 2
    assert state.touched() == [] and list((state.folder / "work").iterdir()) == []


def test_what_was_begun_after_the_committed_generation_stays_unsure(tmp_path: Path) -> None:
    state = MigrationState(tmp_path, "web")
    finished(state, 2)
    begun(state, 3)
    state.commit(2)
    assert state.touched() == [3]
