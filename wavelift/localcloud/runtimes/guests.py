"""Commands in a machine, by the QEMU guest agent: JSON lines over a virtio serial port."""

import base64
import json
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from wavelift.localcloud.entities import Instance
from wavelift.localcloud.locks import KeyedLocks
from wavelift.localcloud.runtimes.agents import (
    OUTPUT_LIMIT,
    Ended,
    Interrupted,
    NoAnswer,
    NoFolder,
    NotRunning,
    Refused,
    Script,
)
from wavelift.localcloud.runtimes.qemu import AGENT_CHANNEL
from wavelift.localcloud.runtimes.qmp import Qmp, QmpError

SHELL = "/bin/sh"
HOME = "/root"
ANSWER_LIMIT = 5.0
NO_FOLDER_SIGNAL = 10  # SIGUSR1
# The script arrives as input and runs in a session of its own, so that its whole family can be ended through this
# shell. A folder that is not there is told by a signal, because every exit code may be the script's own.
WRAPPER = """
cd -- "$0" 2>/dev/null || kill -USR1 $$
file=$(mktemp) && cat >"$file" && chmod 700 "$file" || exit
setsid "$@" "$file" </dev/null 2>&1 &
child=$!
trap 'kill -9 -$child 2>/dev/null || kill -9 $child' TERM
wait $child
code=$?
rm -f "$file"
exit $code
"""


class Channel:
    """One conversation with a guest's agent. Raises NoAnswer, Refused."""

    def __init__(self, path: Path) -> None:
        self._deadline = time.monotonic() + ANSWER_LIMIT
        self._rest = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(ANSWER_LIMIT)
            self._socket.connect(str(path))
            self._synchronise()
        except OSError as error:
            self._socket.close()
            raise NoAnswer(str(error)) from error
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> "Channel":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def _synchronise(self) -> None:
        """Answers to an earlier conversation that was broken off may still come: skip to the one to this number."""
        number = secrets.randbelow(2**31)
        # The byte makes the agent forget half a line that it may have.
        self._send({"execute": "guest-sync-delimited", "arguments": {"id": number}}, b"\xff")
        while True:
            line = self._line()
            if b"\xff" in line and _parsed(line.rpartition(b"\xff")[2]).get("return") == number:
                return

    def execute(self, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self._deadline = time.monotonic() + ANSWER_LIMIT
        try:
            self._send({"execute": command, "arguments": arguments})
            answer = _parsed(self._line())
        except OSError as error:
            raise NoAnswer(str(error)) from error
        if "error" in answer:
            raise Refused(f"{command}: {answer['error']}")
        result = answer.get("return")
        if not isinstance(result, dict):
            raise NoAnswer(f"{command}: {answer} is no answer")
        return result

    def _send(self, message: Mapping[str, Any], before: bytes = b"") -> None:
        self._socket.sendall(before + json.dumps(message).encode() + b"\n")

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise NoAnswer("the guest agent did not answer in time")
            self._socket.settimeout(left)
            data = self._socket.recv(65536)
            if not data:
                raise NoAnswer("the machine closed the agent's channel")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def _parsed(line: bytes) -> dict[str, Any]:
    """What comes from a guest may be anything."""
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise NoAnswer(f"the guest agent does not speak JSON: {error}") from error
    if not isinstance(answer, dict):
        raise NoAnswer(f"{answer} is no answer")
    return answer


class GuestAgent:
    def __init__(self, channel: Callable[[str], Path], talk: Callable[[Instance], Qmp]) -> None:
        self._channel = channel
        self._talk = talk
        # QEMU hears one conversation at a time; the others would wait for an answer until they give up.
        self._locks = KeyedLocks()

    def _execute(self, instance: Instance, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if not self._listens(instance):
            raise NotRunning(f"no agent listens in {instance.id}")
        with self._locks.hold(instance.id), Channel(self._channel(instance.id)) as channel:
            return channel.execute(command, arguments)

    def _listens(self, instance: Instance) -> bool:
        try:
            with self._talk(instance) as qmp:
                devices = qmp.execute("query-chardev")
        except (OSError, QmpError) as error:
            raise NotRunning(str(error)) from error
        return any(device["label"] == AGENT_CHANNEL and device["frontend-open"] for device in devices)

    def greet(self, instance: Instance) -> None:
        self._execute(instance, "guest-ping", {})

    def begin(self, instance: Instance, name: str, script: Script) -> tuple[int, int]:
        arguments = {
            "path": SHELL,
            "arg": ["-c", WRAPPER, script.folder or HOME, *script.interpreter],
            "input-data": base64.b64encode(script.content.encode()).decode(),
            "capture-output": True,
        }
        return int(self._execute(instance, "guest-exec", arguments)["pid"]), 0

    def look(self, instance: Instance, name: str, process: tuple[int, int]) -> Ended | None:
        try:
            status = self._execute(instance, "guest-exec-status", {"pid": process[0]})
        except Refused as error:
            raise Interrupted(str(error)) from error
        if not status["exited"]:
            return None
        if status.get("signal") == NO_FOLDER_SIGNAL:
            raise NoFolder
        if "exitcode" not in status:
            raise Interrupted(f"ended by signal {status.get('signal')}")
        output = base64.b64decode(status.get("out-data", ""))
        return Ended(int(status["exitcode"]), output[-OUTPUT_LIMIT:], max(0, len(output) - OUTPUT_LIMIT))

    def end(self, instance: Instance, name: str, process: tuple[int, int]) -> None:
        self._execute(instance, "guest-exec", {"path": SHELL, "arg": ["-c", f"kill -TERM {process[0]}"]})
