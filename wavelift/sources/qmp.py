"""QEMU's control socket (QMP): one client at a time, commands and their answers, files handed over."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wavelift.blocks.errors import SourceError


class MonitorBusy(SourceError):
    """Somebody else holds the socket: a monitor serves one client at a time."""

    default_code = "monitor_busy"


class QmpError(SourceError):
    """QEMU refused a command."""

    default_code = "qmp_refused"


class GuestGone(SourceError):
    """QEMU does not answer, or has ended."""

    default_code = "guest_gone"


class Qmp:
    """A conversation; safe from several threads. `timeout` in seconds is for each answer."""

    def __init__(self, path: Path, timeout: float = 30.0, greeting: float = 3.0) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(greeting)
        self._reader = self._socket.makefile("rb")
        try:
            self._greet()
            self._socket.settimeout(timeout)
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._reader.close()
        self._socket.close()

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None, files: Sequence[int] = ()) -> Any:
        """The command's answer. `files`: descriptors that go with it. Raises `QmpError`, `GuestGone`."""
        message = json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})}).encode() + b"\n"
        with self._lock:
            try:
                if files:
                    socket.send_fds(self._socket, [message], list(files))
                else:
                    self._socket.sendall(message)
                while "event" in (answer := self._receive()):
                    continue
            except (OSError, ValueError) as error:
                raise self._gone(str(error)) from None
        if "error" in answer:
            raise QmpError(
                f"QEMU at {self._path} refused {command}: {answer['error'].get('desc', answer['error'])}",
                "The guest runs on; see its own log.",
            )
        return answer["return"]

    def attempt(self, command: str, arguments: Mapping[str, Any] | None = None) -> bool:
        """Whether QEMU did it; for what may be done already."""
        try:
            self.execute(command, arguments)
        except QmpError:
            return False
        return True

    def _greet(self) -> None:
        try:
            self._socket.connect(str(self._path))
            self._receive()
        except (TimeoutError, BlockingIOError):
            raise MonitorBusy(
                f"The control socket {self._path} is held by another client: QEMU does not greet.",
                "Give the guest one more monitor for Wavelift alone (-qmp unix:PATH,server=on,wait=off).",
            ) from None
        except OSError as error:
            raise self._gone(error.strerror or str(error)) from None

    def _receive(self) -> dict[str, Any]:
        line = self._reader.readline()
        if not line:
            raise self._gone("it closed the connection")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _gone(self, why: str) -> GuestGone:
        return GuestGone(
            f"QEMU does not answer at {self._path}: {why}.", "Check that the guest runs and the path of its socket."
        )
