"""Starting and ending the processes of a stack, each in a session of its own so that nothing outlives it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_STOP_SECONDS = 20.0
_LEFT_SECONDS = 5.0


class StackError(Exception):
    """The stack could not be started; the message says which part, why, and where its log is."""


@dataclass(frozen=True)
class Started:
    """One process of the stack. The creation time tells it from a later process with the same number."""

    name: str
    pid: int
    created: float
    log: str

    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            return process.create_time() == self.created and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def start(name: str, command: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path) -> Started:
    """Start in its own session, output to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    return Started(name, process.pid, psutil.Process(process.pid).create_time(), str(log))


def first_json_line(process: Started, seconds: float = 60.0) -> dict[str, Any]:
    """What a service prints once it listens. Raises StackError when it ends or stays silent."""
    deadline = time.monotonic() + seconds
    log = Path(process.log)
    while time.monotonic() < deadline:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("{") and line.endswith("}"):
                found: dict[str, Any] = json.loads(line)
                return found
        if not process.alive():
            break
        time.sleep(0.1)
    raise StackError(f"{process.name} did not start; its log {log} ends with:\n{log_tail(log)}")


def log_tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def stop(processes: Iterable[Started], leftovers_under: Path) -> list[str]:
    """End them, last started first, with everything in their sessions. Returns what had to be killed."""
    killed: list[str] = []
    for process in reversed(list(processes)):
        members = _session(process.pid) if process.alive() else []
        if process.alive():
            os.kill(process.pid, signal.SIGTERM)
        _wait_for_end(process)
        left = _terminate(members)
        killed += [f"{process.name} ({member.pid})" for member in left]
    # What a part started in sessions of its own works inside this stack's folder, and in no other.
    left = _terminate(_working_under(leftovers_under))
    return killed + [f"leftover ({member.pid})" for member in left]


def _terminate(members: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Ask what is left to end; kill and return what does not."""
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.terminate()
    _, left = psutil.wait_procs(members, timeout=_LEFT_SECONDS)
    for member in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(left, timeout=_LEFT_SECONDS)
    return left


def _wait_for_end(process: Started) -> None:
    """Until it is gone; our own child is collected so that it does not stay a zombie."""
    deadline = time.monotonic() + _STOP_SECONDS
    while process.alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)


def _session(leader: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                members.append(process)
        except ProcessLookupError:
            continue
    return members


def _working_under(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            inside = Path(process.cwd()).is_relative_to(folder)
        except (psutil.Error, OSError):
            continue
        if inside and process.pid != os.getpid():
            found.append(process)
    return found
