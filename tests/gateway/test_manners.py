"""What a gateway takes of its machine: its priority, its ceiling of memory, and who is exempt from it."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.agent.conftest import Stack
from tests.gateway import test_gateway
from tests.gateway.test_gateway import Gateway, Prepare
from wavelift.service.jobs import JobState

MIB = 1 << 20
CEILING = 64 << 30
GUEST = """
import json, resource, time
while resource.getrlimit(resource.RLIMIT_DATA)[0] == 64 << 30:
    time.sleep(0.01)
print(json.dumps({"event": "report"}), flush=True)
"""


@pytest.fixture
def ceiling() -> Iterator[None]:
    """One for this process, far above what it needs."""
    former, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (CEILING, most))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, (former, most))


def test_a_gateway_stands_back_and_has_a_ceiling(tmp_path: Path) -> None:
    stack = Stack(tmp_path).start()
    try:
        process = psutil.Process(stack.gateway.process.pid)
        found = process.ionice()
        assert (process.nice(), int(found.ioclass), int(found.value)) == (max(10, os.nice(0)), 2, 7)
        assert process.rlimit(psutil.RLIMIT_DATA)[0] == 4096 * MIB
    finally:
        stack.stop()


@pytest.mark.usefixtures("ceiling")
def test_who_prepares_a_guest_is_not_under_the_ceiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_gateway, "GUEST", GUEST)
    gateway = Gateway(tmp_path)
    prepare = Prepare(gateway, tmp_path, "")
    try:
        assert prepare.wait(JobState.SUCCEEDED, JobState.FAILED).state is JobState.SUCCEEDED
    finally:
        prepare.close()
        gateway.close()
