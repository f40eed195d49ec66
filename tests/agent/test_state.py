"""What a commit does to a migration's folder, also late, twice, or cut short."""

from __future__ import annotations

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
    state.finished(generation, {"root": "00"}, {"sda": "d-v1"})


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
    with pytest.raises(NotFound):
        state.commit(9)
