"""The command as a process, to be killed and started again; whatever happens, nothing of it is left."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from tests.localcloud.conftest import Ecs
from wavelift.localcloud.runtimes import processes
from wavelift.localcloud.volume import Volume

KEY, SECRET = "K", "S"


class Server:
    def __init__(self, state: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "wavelift.localcloud.command", "--state", str(state), *arguments]
        self.errors = (state.parent / "stderr").open("ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.errors)
        assert self.process.stdout is not None
        self.hello = json.loads(self.process.stdout.readline())

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.errors.close()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


class Launcher:
    """Starts servers on one state folder and leaves none behind."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._servers: list[Server] = []

    def start(self, *arguments: str) -> tuple[Server, Ecs]:
        keys = ("--access-key", f"{KEY}:{SECRET}", "--allow-host-instances")
        server = Server(self.state, *keys, *arguments)
        self._servers.append(server)
        return server, Ecs(server.hello["endpoint"], KEY, SECRET)

    def close(self) -> None:
        for server in self._servers:
            if server.process.poll() is None:
                server.end(signal.SIGTERM)
        clean_up(self.state)


def clean_up(state: Path) -> None:
    """What a killed server leaves: its instances run on, their sockets stay, its volume stays mounted."""
    for instance in processes.instances_of(state.resolve()):
        processes.end(instance, 0)
    if (state / "state.sqlite").exists():
        shutil.rmtree(setting(state, "sockets"), ignore_errors=True)
    Volume(state).close()


def setting(state: Path, name: str) -> Path:
    with closing(sqlite3.connect(state / "state.sqlite")) as connection:
        (value,) = connection.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
    return Path(value)
