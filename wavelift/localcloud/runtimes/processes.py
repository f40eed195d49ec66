"""Processes that outlive the server: told apart from strangers by start time and by a mark in their environment."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

MARK = "INSTANCE_ID"
PROC = Path("/proc")


class Children:
    """Starts processes in sessions of their own and collects the ones that ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[subprocess.Popen[bytes]] = []

    def spawn(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], output: Path
    ) -> tuple[int, int]:
        with output.open("ab") as sink:
            process = subprocess.Popen(
                list(command),
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        ticks = start_ticks(process.pid)
        with self._lock:
            self._running.append(process)
        # One that has already ended keeps its number until it is collected, so its ticks are nobody else's.
        return process.pid, ticks if ticks is not None else -1

    def collect(self) -> None:
        with self._lock:
            self._running = [process for process in self._running if process.poll() is None]


def start_ticks(pid: int) -> int | None:
    """When a process started, in the kernel's ticks; None when it does not run (any more)."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything; the fields after the last one are fixed: state is 3, start time is 22.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def alive(pid: int, ticks: int) -> bool:
    return pid > 0 and start_ticks(pid) == ticks


def marked(instance: str) -> list[int]:
    """Every live process that carries the instance's mark: also those that left its process group."""
    mark = f"{MARK}={instance}".encode()
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        pid = int(entry.name)
        if mark in environment.split(b"\0") and start_ticks(pid) is not None:
            found.append(pid)
    return found


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def end(instance: str, grace: float) -> None:
    """Ask every process of the instance to end, and end it after `grace` seconds."""
    deadline = time.monotonic() + grace
    send(marked(instance), signal.SIGTERM)
    while marked(instance):
        if time.monotonic() >= deadline:
            send(marked(instance), signal.SIGKILL)
        time.sleep(0.02)


def freeze(instance: str) -> None:
    """Stop every process of the instance, those too that are forked meanwhile."""
    frozen: set[int] = set()
    while new := [pid for pid in marked(instance) if pid not in frozen]:
        send(new, signal.SIGSTOP)
        frozen.update(new)


def thaw(instance: str) -> None:
    send(marked(instance), signal.SIGCONT)
