"""Processes that outlive the server: told apart from strangers by start time and by marks in their environment."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

LOG = logging.getLogger(__name__)

MARK = "INSTANCE_ID"
OWNER = "LOCAL_CLOUD_STATE"
PROC = Path("/proc")
LOOKS = 10


class Children:
    """Starts processes in sessions of their own and collects the ones that ended."""

    def __init__(self, owner: Path) -> None:
        """`owner` is the state folder of the cloud: several clouds may run on one host."""
        self._owner = owner
        self._lock = threading.Lock()
        self._running: list[subprocess.Popen[bytes]] = []

    def spawn(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], output: Path
    ) -> tuple[int, int]:
        with output.open("ab") as sink:
            process = subprocess.Popen(
                list(command),
                cwd=folder,
                env={**environment, OWNER: str(self._owner)},
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

    def instances(self) -> set[str]:
        """Those that processes run for, whether they are known or not."""
        return instances_of(self._owner)

    def end_strays(self, known: Container[str]) -> None:
        """What still runs for instances that are not known (any more): the state folder was made anew."""
        for instance in self.instances():
            if instance not in known:
                LOG.warning("%s is unknown here and still runs: it is ended", instance)
                end(instance, 0)

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
    return [pid for pid, environment in _environments() if mark in environment and start_ticks(pid) is not None]


def instances_of(owner: Path) -> set[str]:
    """The instances of a cloud that processes run for, whether the cloud knows of them or not."""
    mark, prefix = os.fsencode(f"{OWNER}={owner}"), f"{MARK}=".encode()
    return {
        variable.removeprefix(prefix).decode()
        for pid, environment in _environments()
        if mark in environment and start_ticks(pid) is not None
        for variable in environment
        if variable.startswith(prefix)
    }


def _environments() -> Iterator[tuple[int, list[bytes]]]:
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = _environment(entry)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        yield int(entry.name), environment.split(b"\0")


def _environment(entry: Path) -> bytes:
    """A process that becomes another program (exec) has none for a moment, and would be taken for a stranger."""
    for _ in range(LOOKS):
        if environment := (entry / "environ").read_bytes():
            return environment
        (entry / "exe").readlink()  # fails for what never has any: the kernel's own threads, and what has ended
        time.sleep(0.0005)
    return b""


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
