"""A service that is told to stop cleans up behind itself, whatever it does and whoever is connected; and only then
can another one have its state."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources.test_qemu import Machine

from .conftest import MIB, Service, Stack, noise, succeeded
from .test_limits import ALL, CRAWL, KEY, at_step, put


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Machine]:
    (tmp_path / "guest").mkdir()
    guest = Machine(tmp_path / "guest", a=8 * MIB)
    yield guest
    guest.stop()


def state_of(stack: Stack) -> str:
    with sqlite3.connect(stack.folder / "ag" / "jobs.db") as jobs:
        return str(jobs.execute("SELECT state FROM jobs WHERE key = ?", (KEY,)).fetchone()[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_is_queued_when_its_agent_stops_and_a_connected_client_is_no_error(
    stack: Stack, number: signal.Signals
) -> None:
    stack.disk("sda", 12 * MIB, {0: noise(12 * MIB)})
    stack.volume("v1", 12 * MIB)
    stack.start()
    with stack.agent_client as client:
        put(client, ALL, CRAWL)
        client.submit(KEY, stack.spec(1, sda="d-v1"))
        at_step(client, "copying")
        # The client's connection stays open, idle.
        stack.agent.process.send_signal(number)
        assert stack.agent.process.wait(15) == 0, stack.agent.log()
    assert state_of(stack) == "queued"
    assert '"error"' not in stack.agent.log()


def test_nothing_stays_in_a_live_guest_when_its_agent_stops(stack: Stack, guest: Machine) -> None:
    guest.io("a", "write -P 7 0 8M")
    stack.volume("v1", 8 * MIB)
    stack.disks = {"a": Path(f"qmp:{guest.monitor}?node=node-a")}
    stack.start()
    with stack.agent_client as client:
        put(client, ALL, CRAWL)
        client.submit(KEY, stack.spec(1, a="d-v1"))
        at_step(client, "copying")
        assert guest.left()
        stack.agent.stop()
    assert guest.left() == []
    assert state_of(stack) == "queued"
    stack.agent.start()
    with stack.agent_client as client:
        put(client, ALL, None)
        succeeded(client, KEY)


def test_a_state_in_use_is_no_state_for_a_second_service_until_the_first_is_dead(stack: Stack) -> None:
    stack.start()
    for service, folder in ((stack.agent, "ag"), (stack.gateway, "gw")):
        second = Service.__new__(Service)
        second.__dict__ |= service.__dict__
        with pytest.raises(AssertionError) as refused:
            second.start()
        assert f"{stack.folder / folder} is in use by process {service.process.pid}" in str(refused.value)
        assert second.process.returncode == 2
        service.kill()
        service.start()
