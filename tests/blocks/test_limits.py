"""What of the limits is kept, and which goes before which."""

from __future__ import annotations

from pathlib import Path

import pytest

from wavelift.blocks.bandwidth import Bandwidth
from wavelift.blocks.limits import Limits, LimitsUnreadable

SLOW, FAST = Bandwidth(limit=64_000), Bandwidth(limit=50_000_000)


def in_force(limits: Limits, migration: str) -> list[int | None]:
    return [throttle.now().limit for throttle in limits.of(migration)]


def test_a_request_goes_before_a_job_until_it_is_taken_back(tmp_path: Path) -> None:
    limits = Limits(tmp_path / "limits.json")
    limits.order("web", SLOW)
    assert in_force(limits, "web") == [64_000, None] and limits.about("web").set_by == "job"
    limits.set("web", FAST)
    limits.order("web", SLOW)
    assert in_force(limits, "web") == [50_000_000, None] and limits.about("web").set_by == "request"
    limits.set("web", None)
    assert in_force(limits, "web") == [64_000, None]
    limits.order("web", None)
    assert in_force(limits, "web") == [None, None] and limits.about("web").set_by is None


def test_what_was_set_outlives_a_restart_and_what_jobs_carry_comes_with_them(tmp_path: Path) -> None:
    limits = Limits(tmp_path / "limits.json")
    limits.set_all(FAST)
    limits.set("web", SLOW)
    limits.order("db", SLOW)
    again = Limits(tmp_path / "limits.json")
    assert in_force(again, "web") == [64_000, 50_000_000] and in_force(again, "db") == [None, 50_000_000]
    again.forget("web")
    again.set_all(None)
    assert in_force(Limits(tmp_path / "limits.json"), "web") == [None, None]


def test_senders_that_are_under_way_feel_the_change(tmp_path: Path) -> None:
    limits = Limits(tmp_path / "limits.json")
    migration, whole = limits.of("web")
    limits.set("web", SLOW)
    limits.set_all(FAST)
    assert (migration.now().limit, whole.now().limit) == (64_000, 50_000_000)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    path.write_text('{"all": {"limit": "50 Mb"}}')
    with pytest.raises(LimitsUnreadable) as refused:
        Limits(path)
    assert str(path) in refused.value.message
