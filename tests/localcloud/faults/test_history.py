"""Reads of the past against a list of everything that ever was."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wavelift.localcloud.entities import Disk, Snapshot
from wavelift.localcloud.faults import history
from wavelift.localcloud.faults.history import AS_OF, History
from wavelift.localcloud.store import Store


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(history, "time", SimpleNamespace(monotonic=made.monotonic))
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "state.sqlite")) as made:
        yield made


def disk(name: str, size: int) -> Disk:
    return Disk(id=name, created=0, zone="z", size=size, category="cloud")


def sizes(store: Store, moment: float = 0.0) -> dict[str, int]:
    token = AS_OF.set(moment)
    try:
        with store.transaction() as tx:
            found = {each.id: each.size for each in tx.all(Disk)}
            assert [each.id for each in tx.look(Disk)] == list(found) and tx.count(Disk) == len(found)
            for name in "abc":
                one = tx.get(Disk, name)
                assert (one.size if one else None) == found.get(name)
            return found
    finally:
        AS_OF.reset(token)


step = st.tuples(st.sampled_from(["put", "put", "remove", "undone"]), st.sampled_from("abc"), st.integers(1, 9))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.lists(step, max_size=3), max_size=12), lag=st.integers(1, 6))
def test_every_moment_reads_as_it_was(store: Store, clock: Clock, steps: list[list[Any]], lag: int) -> None:
    past = History(store)
    past.remember(lag)
    truth = {clock.now: sizes(store)}
    for transaction in steps:
        clock.now += 1
        try:
            with store.transaction() as tx:
                for what, name, size in transaction:
                    (tx.remove if what == "remove" else tx.put)(disk(name, size))
                if any(what == "undone" for what, _, _ in transaction):
                    raise InterruptedError
        except InterruptedError:
            assert sizes(store) == truth[clock.now - 1]
        truth[clock.now] = sizes(store)
        changed = any(truth[moment] != truth[clock.now] for moment in truth if moment > clock.now - lag - 1)
        assert past.changed_within(lag) or not changed
        for moment in (m for m in truth if m >= clock.now - lag):
            # Not yet what happened at that very moment, but all that came before.
            assert sizes(store, moment + 0.5) == truth[moment]
    past.remember(0)
    assert not past.changed_within(lag)
    with store.transaction() as tx:
        for name in "abc":
            tx.remove(disk(name, 0))


def test_nothing_is_kept_without_need(store: Store, clock: Clock) -> None:
    past = History(store)
    with store.transaction() as tx:
        tx.put(disk("a", 1))
    assert not past.changed_within(100)
    past.remember(10)
    past.remember(20)
    with store.transaction() as tx:
        tx.put(disk("a", 2))
        tx.put(disk("b", 2))
        assert tx.get(Snapshot, "s") is None
    clock.now += 15
    assert past.changed_within(20) and not past.changed_within(10)
    assert sizes(store, clock.now - 16) == {"a": 1}
    past.remember(0)
    assert sizes(store, clock.now - 16) == sizes(store) == {"a": 2, "b": 2}
