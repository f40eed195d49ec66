"""Commands in a host instance: scripts on this machine, with the instance's environment and mark."""

import os
import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from wavelift.localcloud.entities import Instance
from wavelift.localcloud.runtimes.agents import OUTPUT_LIMIT, Ended, Interrupted, NoFolder, NotRunning, Script
from wavelift.localcloud.runtimes.base import Folders
from wavelift.localcloud.runtimes.processes import Children, alive

SHELL = "/bin/sh"
# Whoever started the script may be gone when it ends, so its exit code goes to a file. It has a session of its own, so
# that this shell outlives it when it is ended with all its family.
WRAPPER = """
setsid "$@" </dev/null &
child=$!
trap 'kill -9 -$child 2>/dev/null || kill -9 $child' TERM
wait $child
echo $? >"$0/exit.partial"
mv "$0/exit.partial" "$0/exit"
"""


class HostAgent:
    def __init__(
        self, folders: Folders, children: Children, environment: Callable[[Instance], Mapping[str, str]]
    ) -> None:
        self._folders = folders
        self._children = children
        self._environment = environment

    def _folder(self, instance: Instance, name: str) -> Path:
        return self._folders.path(instance.id) / "commands" / name

    def greet(self, instance: Instance) -> None:
        if not alive(instance.pid, instance.ticks):
            raise NotRunning

    def begin(self, instance: Instance, name: str, script: Script) -> tuple[int, int]:
        where = Path(script.folder) if script.folder else self._folders.of(instance.id)
        if not where.is_dir():
            raise NoFolder
        folder = self._folder(instance, name)
        folder.mkdir(parents=True)
        file = folder / "script"
        file.write_text(script.content)
        file.chmod(0o700)
        command = [SHELL, "-c", WRAPPER, str(folder), *script.interpreter, str(file)]
        return self._children.spawn(command, where, self._environment(instance), folder / "output")

    def look(self, instance: Instance, name: str, process: tuple[int, int]) -> Ended | None:
        # Asked first: whoever ends between the two questions has left its exit code.
        running = alive(*process)
        folder = self._folder(instance, name)
        exit_code = folder / "exit"
        if exit_code.exists():
            ended = Ended(int(exit_code.read_text()), *_tail(folder / "output"))
            shutil.rmtree(folder)
            return ended
        if not running:
            raise Interrupted("the script was ended from outside")
        return None

    def end(self, instance: Instance, name: str, process: tuple[int, int]) -> None:
        if alive(*process):
            with suppress(ProcessLookupError):
                os.kill(process[0], signal.SIGTERM)


def _tail(path: Path) -> tuple[bytes, int]:
    """The end of a file that may be larger than memory, and how much comes before it."""
    with path.open("rb") as file:
        dropped = max(0, os.fstat(file.fileno()).st_size - OUTPUT_LIMIT)
        file.seek(dropped)
        return file.read(OUTPUT_LIMIT), dropped
