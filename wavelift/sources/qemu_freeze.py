"""Freezes a guest's file systems through its guest agent, and thaws them whatever happens to who asked.

A process of its own (`python -m wavelift.sources.qemu_freeze SOCKET`): it says "frozen", thaws when its input
ends, which the death of its parent does too, or after `HOLD` seconds at the latest (it says so then).
"""

from __future__ import annotations

import json
import os
import secrets
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ANSWER = 2.0
# A database's clients notice a longer stop.
HOLD = 4.0
THAW_TRIES = 5


class NoAnswer(Exception):
    """The guest agent did not answer in time, or refused."""


@dataclass
class Freeze:
    """`held` is final once the block has ended: whether the file systems were frozen all through it."""

    held: bool


@contextmanager
def frozen(agent: Path) -> Iterator[Freeze]:
    """Freeze for the time of the block, if the guest agent answers. Thaws at its end."""
    command = [sys.executable, "-m", "wavelift.sources.qemu_freeze", str(agent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as helper:
        assert helper.stdin is not None and helper.stdout is not None
        freeze = Freeze(helper.stdout.readline() == b"frozen\n")
        try:
            yield freeze
        finally:
            helper.stdin.close()
            if helper.stdout.read():
                freeze.held = False


class GuestAgent:
    """A conversation with the agent, brought into step first: an answer to an earlier client may still come."""

    def __init__(self, path: Path, timeout: float = ANSWER) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._timeout = timeout
        self._rest = b""
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(str(path))
            number = secrets.randbelow(1 << 31)
            self._send("guest-sync-delimited", {"id": number}, prefix=b"\xff")
            while self._receive().get("return") != number:
                continue
        except OSError as error:
            self.close()
            raise NoAnswer(str(error)) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def execute(self, command: str) -> Any:
        try:
            self._send(command, {})
            answer = self._receive()
        except OSError as error:
            raise NoAnswer(str(error)) from None
        if "error" in answer:
            raise NoAnswer(str(answer["error"].get("desc", answer["error"])))
        return answer["return"]

    def _send(self, command: str, arguments: dict[str, Any], prefix: bytes = b"") -> None:
        message = {"execute": command, **({"arguments": arguments} if arguments else {})}
        self._socket.sendall(prefix + json.dumps(message).encode() + b"\n")

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + self._timeout
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0:
                raise NoAnswer("no answer in time")
            self._socket.settimeout(left)
            piece = self._socket.recv(65536)
            if not piece:
                raise NoAnswer("it closed the connection")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            answer = json.loads(line.rpartition(b"\xff")[2])
        except ValueError:
            # The tail of what an earlier client was sent.
            return {}
        return answer if isinstance(answer, dict) else {}


def main(path: Path) -> int:
    """0 when nothing stayed frozen."""
    state = "not frozen"
    try:
        agent = GuestAgent(path)
    except NoAnswer as error:
        print(f"not frozen: {error}", flush=True)
        return 0
    try:
        count = agent.execute("guest-fsfreeze-freeze")
        state = "frozen" if isinstance(count, int) and count > 0 else "not frozen: it has no file system to freeze"
    except NoAnswer as error:
        # It may still come to it: thawed below all the same.
        state = f"not frozen: {error}"
    finally:
        agent.close()
    try:
        os.write(sys.stdout.fileno(), f"{state}\n".encode())
        if state == "frozen":
            waited = select.select([sys.stdin], [], [], HOLD)
            if not waited[0]:
                os.write(sys.stdout.fileno(), b"held for too long\n")
    except OSError as error:
        print(f"the parent is gone: {error}", file=sys.stderr)
    return 0 if _thaw(path) else 1


def _thaw(path: Path) -> bool:
    for attempt in range(THAW_TRIES):
        try:
            agent = GuestAgent(path)
            try:
                agent.execute("guest-fsfreeze-thaw")
                return True
            finally:
                agent.close()
        except NoAnswer as error:
            print(f"thaw, attempt {attempt + 1}: {error}", file=sys.stderr)
            time.sleep(0.5)
    return False


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
