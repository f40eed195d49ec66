"""QEMU's control socket, one connection per conversation."""

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any


class QmpError(Exception):
    """QEMU refused a command, or did not answer."""


class Qmp:
    def __init__(self, path: Path, timeout: float = 10.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        self._events: list[dict[str, Any]] = []
        try:
            self._socket.connect(str(path))
            self._reader = self._socket.makefile("rb")
            self._receive()  # the greeting
            self.execute("qmp_capabilities")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> "Qmp":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()
        self._socket.close()

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = dict(arguments)
        self._socket.sendall(json.dumps(message).encode() + b"\n")
        while True:
            answer = self._receive()
            if "event" in answer:
                self._events.append(answer)
            elif "error" in answer:
                raise QmpError(f"{command}: {answer['error'].get('desc', answer['error'])}")
            else:
                return answer["return"]

    def human(self, line: str) -> str:
        """A command of the monitor for people; it answers errors as text."""
        return str(self.execute("human-monitor-command", {"command-line": line}))

    def wait_event(self, name: str, device: str, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        seen = list(self._events)
        while True:
            for event in seen:
                if event["event"] == name and event.get("data", {}).get("device") == device:
                    return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._socket.settimeout(left)
            try:
                seen = [self._receive()]
            except TimeoutError:
                return False

    def _receive(self) -> dict[str, Any]:
        line = self._reader.readline()
        if not line:
            raise QmpError("the machine closed its control socket")
        answer: dict[str, Any] = json.loads(line)
        return answer
