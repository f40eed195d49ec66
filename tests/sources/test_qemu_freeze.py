"""Freezing through a guest agent that answers, is silent, refuses to thaw at first, or whose client is killed.

The other end speaks the agent's protocol over a real socket: a real agent here would freeze this machine.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wavelift.sources.base import Consistency
from wavelift.sources.qemu import QemuDisk, QemuGuest
from wavelift.sources.qemu_freeze import frozen

from .test_qemu import MIB, Machine


class Agent:
    """Keeps what it was told. `silent` to all but the sync; `refusals` of a thaw before it does one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[str] = []
        self.frozen = False
        self.silent = False
        self.refusals = 0
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(path))
        self._listening.listen(8)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            with client, client.makefile("rwb") as lines:
                # What an earlier client left unread.
                lines.write(b'{"return": {"half": 1}}\n')
                for line in lines:
                    answer = self._answer(json.loads(line.rpartition(b"\xff")[2]))
                    if answer is not None:
                        lines.write(b"\xff" + json.dumps(answer).encode() + b"\n")
                        lines.flush()

    def _answer(self, message: dict[str, object]) -> dict[str, object] | None:
        command = str(message["execute"])
        if command == "guest-sync-delimited":
            arguments = message["arguments"]
            assert isinstance(arguments, dict)
            return {"return": arguments["id"]}
        self.told.append(command.removeprefix("guest-fsfreeze-"))
        if self.silent and command.endswith("freeze"):
            return None
        if command.endswith("thaw") and self.refusals:
            self.refusals -= 1
            return {"error": {"class": "GenericError", "desc": "not now"}}
        self.frozen = command.endswith("-freeze")
        return {"return": 2}

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "ga")
    yield agent
    agent.close()


def until_thawed(agent: Agent) -> None:
    deadline = time.monotonic() + 20
    while agent.frozen or "thaw" not in agent.told:
        assert time.monotonic() < deadline, agent.told
        time.sleep(0.01)


def test_frozen_for_the_block_and_thawed_after_though_it_refuses_first(agent: Agent) -> None:
    agent.refusals = 2
    with frozen(agent.path) as freeze:
        assert freeze.held and agent.frozen
    assert freeze.held and not agent.frozen and agent.told == ["freeze", "thaw", "thaw", "thaw"]
    with pytest.raises(ZeroDivisionError), frozen(agent.path):
        _ = 1 // 0
    assert not agent.frozen


def test_without_an_answer_there_is_no_freeze_and_a_thaw_all_the_same(agent: Agent, tmp_path: Path) -> None:
    agent.silent = True
    with frozen(agent.path) as freeze:
        assert not freeze.held
    assert agent.told == ["freeze", "thaw"]
    with frozen(tmp_path / "nobody") as freeze:
        assert not freeze.held


def test_the_death_of_who_froze_thaws(agent: Agent) -> None:
    program = (
        "import sys, time; from pathlib import Path; from wavelift.sources.qemu_freeze import frozen\n"
        "with frozen(Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(agent.path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"in\n" and agent.frozen
        holder.kill()
    until_thawed(agent)


def test_held_for_too_long_it_thaws_and_does_not_count(agent: Agent) -> None:
    with frozen(agent.path) as freeze:
        until_thawed(agent)
    assert not freeze.held


def test_a_moment_says_whether_it_was_frozen(agent: Agent, tmp_path: Path) -> None:
    machine = Machine(tmp_path, a=4 * MIB)
    try:
        disk = QemuDisk(QemuGuest(machine.monitor, tmp_path / "scratch", agent.path), "a")
        assert disk.describe()[1] is Consistency.FROZEN
        for silent, found in ((False, Consistency.FROZEN), (True, Consistency.CRASH)):
            agent.silent = silent
            opened = disk.open()
            assert opened.consistency is found and not agent.frozen
            opened.close()
    finally:
        machine.stop(kill=True)
