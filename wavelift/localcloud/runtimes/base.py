"""What runs an instance. A QEMU machine and a process group on this host answer to the same verbs."""

import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

from wavelift.localcloud.entities import Disk, Instance
from wavelift.localcloud.runtimes.agents import Agent
from wavelift.localcloud.runtimes.processes import MARK

INHERITED = ("PATH", "HOME", "LANG", "TZ")


class RuntimeFailure(Exception):
    """The machine did not do what the request needs of it."""


class Runtime(Protocol):
    @property
    def agent(self) -> Agent:
        """Runs commands inside."""

    def start(self, instance: Instance, disks: Sequence[Disk], ports: Sequence[int]) -> tuple[int, int]:
        """Run the instance with its disks, the system disk first; returns process id and start ticks."""

    def stop(self, instance: Instance, grace: float) -> None:
        """End it; `grace` is how many seconds it has to end by itself. Harmless when it does not run."""

    def attach(self, instance: Instance, disk: Disk) -> None: ...

    def detach(self, instance: Instance, disk: Disk) -> None: ...

    def resize(self, instance: Instance, disk: Disk, size: int) -> None:
        """Tell a running instance that the disk's file has grown to `size` bytes."""

    def freeze(self, instance: Instance) -> None: ...

    def thaw(self, instance: Instance) -> None: ...

    def open_port(self, instance: Instance, port: int) -> None: ...

    def close_port(self, instance: Instance, port: int) -> None:
        """New connections are refused; those that are open stay."""

    def screenshot(self, instance: Instance, wake: bool) -> bytes | None:
        """A JPEG; None for what has no screen. `wake` touches a key first: a guest may have blanked its screen."""


class Folders:
    """One folder per instance: its console, its program's own output, its devices."""

    def __init__(self, state: Path) -> None:
        self._root = state / "instances"
        self._root.mkdir(exist_ok=True)

    def path(self, instance: str) -> Path:
        return self._root / instance

    def of(self, instance: str) -> Path:
        """Made if it is not there: for what runs, or is about to."""
        folder = self.path(instance)
        folder.mkdir(exist_ok=True)
        return folder

    def console(self, instance: str) -> Path:
        return self.path(instance) / "console.log"

    def remove(self, instance: str) -> None:
        shutil.rmtree(self.of(instance))

    def sweep(self, instances: Collection[str]) -> None:
        """Keep the folders of these instances."""
        for folder in self._root.iterdir():
            if folder.name not in instances:
                shutil.rmtree(folder)


def environment(instance: Instance, **more: str) -> dict[str, str]:
    """Little is inherited: what else this process was given may be a secret."""
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return kept | {MARK: instance.id} | more
