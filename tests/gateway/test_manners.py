"""What a gateway takes of its machine: its priority, its ceiling of memory, and who is exempt from it."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.agent.conftest import KEY as AGENT_KEY
from tests.agent.conftest import MIGRATION, Stack
from tests.gateway import test_gateway
from tests.gateway.test_gateway import Gateway, Prepare, make_pack
from wavelift.blocks.digest import BLOCK
from wavelift.gateway.app import PackAnswer
from wavelift.service import tokens
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


def test_a_gateway_stands_back_and_tells_nobody_of_others(tmp_path: Path) -> None:
    stack = Stack(tmp_path).start()
    try:
        process = psutil.Process(stack.gateway.process.pid)
        found = process.ionice()
        assert (process.nice(), int(found.ioclass), int(found.value)) == (max(10, os.nice(0)), 2, 7)
        assert process.rlimit(psutil.RLIMIT_DATA)[0] == 4096 * MIB
        _only_jobs_of_its_own_are_told(stack)
    finally:
        stack.stop()


def test_a_pack_is_answered_as_the_document_says(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    try:
        status, receipt = gateway.put(make_pack(b"x" * BLOCK))
    finally:
        gateway.close()
    assert status == 200 and PackAnswer.model_validate(receipt).model_dump() == receipt


def _only_jobs_of_its_own_are_told(stack: Stack) -> None:
    spec = {"kind": "prepare", "migration": MIGRATION, "generation": 1, "disks": [{"disk": "sda", "volume": "none"}]}
    other = tokens.issue(AGENT_KEY, migration="other", scope="control", lifetime=60)
    with stack.gateway_client as client, stack.client_of_gateway(other) as stranger:
        client.submit(f"{MIGRATION}/1/prepare", spec)
        assert [job.key for job in client.jobs()] == [f"{MIGRATION}/1/prepare"]
        assert stranger.jobs() == []


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
