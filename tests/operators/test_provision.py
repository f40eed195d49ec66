"""A run that has ended is not begun again beside the results it keeps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from operators.provision import RunEnded, _check_not_ended
from storage_backends.base import TAG_PREFIX, Kind, Resource, Role, State

RUN: Any = SimpleNamespace(key="demo-web-1", labels=lambda: None)


def resource(kind: Kind, role: Role) -> Resource:
    return Resource(kind, f"{kind}-{role}", State.READY, "", tags={f"{TAG_PREFIX}role": role})


def check(*left: Resource, forgotten: bool = False) -> None:
    backend: Any = SimpleNamespace(list=lambda _labels: list(left))
    _check_not_ended(RUN, backend, forgotten=forgotten)


REPLICA = resource(Kind.VOLUME, Role.REPLICA)
SNAPSHOT = resource(Kind.SNAPSHOT, Role.REPLICA)
INSTANCE = resource(Kind.INSTANCE, Role.TARGET)


@pytest.mark.parametrize("left", [(SNAPSHOT,), (INSTANCE,), (SNAPSHOT, INSTANCE)])
def test_kept_results_without_volumes_end_a_run(left: tuple[Resource, ...]) -> None:
    with pytest.raises(RunEnded, match=r"has ended and keeps .*Trigger a new run") as caught:
        check(*left)
    assert all(each.id in caught.value.message for each in left)


@pytest.mark.parametrize(
    "left", [(), (REPLICA,), (REPLICA, SNAPSHOT), (REPLICA, INSTANCE), (resource(Kind.INSTANCE, Role.GATEWAY),)]
)
def test_a_run_under_way_or_wiped_clean_goes_on(left: tuple[Resource, ...]) -> None:
    check(*left)


def test_kept_archives_that_the_agent_has_forgotten_end_a_run() -> None:
    with pytest.raises(RunEnded, match="has ended and keeps"):
        check(REPLICA, SNAPSHOT, forgotten=True)
    # Nothing was read back yet: the agent knows of no generation either.
    check(REPLICA, forgotten=True)
