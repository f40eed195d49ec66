"""Loop devices over files and servers of blocks, taken down whatever happens."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

LoopDevice = Callable[..., Path]
Serve = Callable[..., None]

ACCEPTS = 1 << 16
"""`__SO_ACCEPTCON` among the flags of /proc/net/unix."""


@pytest.fixture
def loop_device() -> Iterator[LoopDevice]:
    """A function that puts a loop device over a file; `losetup` options may follow."""
    if os.geteuid() != 0:
        pytest.skip("loop devices take root")
    with ExitStack() as stack:

        def attach(file: Path, *options: str) -> Path:
            command = ["losetup", "--find", "--show", *options, file]
            found = subprocess.run(command, capture_output=True, text=True)
            if found.returncode:
                pytest.skip(f"no loop devices here: {found.stderr.strip()}")
            device = found.stdout.strip()
            stack.callback(subprocess.run, ["losetup", "--detach", device], check=True)
            return Path(device)

        yield attach


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server and returns once `ready` is there: a socket's path, or a port of this machine."""
    running: list[subprocess.Popen[bytes]] = []

    def start(ready: Path | int, *command: str | Path) -> None:
        process = subprocess.Popen([str(word) for word in command])
        running.append(process)
        deadline = time.monotonic() + 20
        while not listening(ready):
            assert process.poll() is None and time.monotonic() < deadline, command
            time.sleep(0.01)

    yield start
    for process in running:
        process.kill()
        process.wait()


def listening(at: Path | int) -> bool:
    if isinstance(at, Path):  # the path is there from bind() on; the kernel's table tells of listen()
        sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
        return any(fields[-1] == str(at) and int(fields[3], 16) & ACCEPTS for fields in sockets[1:])
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", at)) == 0
