"""Rules on the cloud that the other tests use too: gone again after each test."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from wavelift.localcloud.faults.calls import Faults
from wavelift.localcloud.faults.rules import Rule
from wavelift.localcloud.server import LocalCloud

Order = Callable[..., str]


@pytest.fixture
def faults(server: LocalCloud) -> Iterator[Faults]:
    yield server.faults
    server.faults.reset()


@pytest.fixture
def order(faults: Faults) -> Order:
    """`order("throttle", action="CreateDisk", times=1, fault={"retry_after_ms": 5})` is a rule's id."""

    def add(kind: str, *, fault: dict[str, Any] | None = None, **fields: Any) -> str:
        (rule,) = faults.add([Rule.model_validate({"fault": {"kind": kind, **(fault or {})}, **fields})])
        return rule.id

    return add
