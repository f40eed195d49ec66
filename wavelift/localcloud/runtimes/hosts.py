"""Host instances: the user data runs as a script on this machine, in a session of its own.

The system disk of a host instance is this machine's own and is not shown to it; data disks appear in its device
folder under the serials they would have in a guest.
"""

from collections.abc import Sequence
from pathlib import Path

from wavelift.localcloud import disks as files
from wavelift.localcloud.disks import DiskFiles
from wavelift.localcloud.entities import Disk, Instance
from wavelift.localcloud.runtimes import processes
from wavelift.localcloud.runtimes.base import Folders, environment
from wavelift.localcloud.runtimes.processes import Children
from wavelift.localcloud.runtimes.scripts import HostAgent

SHELL = "/bin/sh"


class Hosts:
    def __init__(self, folders: Folders, disks: DiskFiles, children: Children) -> None:
        self._folders = folders
        self._disks = disks
        self._children = children
        self.agent = HostAgent(folders, children, self._environment)

    def _environment(self, instance: Instance) -> dict[str, str]:
        devices = str(self.devices(instance.id))
        return environment(instance, INSTANCE_ADDRESS=instance.address, DEVICE_DIR=devices)

    def devices(self, instance: str) -> Path:
        folder = self._folders.of(instance) / "devices"
        folder.mkdir(exist_ok=True)
        return folder

    def start(self, instance: Instance, disks: Sequence[Disk], ports: Sequence[int]) -> tuple[int, int]:
        folder = self._folders.of(instance.id)
        devices = self.devices(instance.id)
        for left in devices.iterdir():
            left.unlink()
        for disk in disks:
            if disk.type == "data":
                self.attach(instance, disk)
        script = folder / "user-data"
        script.write_text(instance.user_data)
        script.chmod(0o700)
        command = [str(script)] if instance.user_data.startswith("#!") else [SHELL, str(script)]
        console = self._folders.console(instance.id)
        return self._children.spawn(command, folder, self._environment(instance), console)

    def stop(self, instance: Instance, grace: float) -> None:
        processes.end(instance.id, grace)

    def attach(self, instance: Instance, disk: Disk) -> None:
        files.link(self.devices(instance.id), disk.serial, self._disks.disk(disk.id))

    def detach(self, instance: Instance, disk: Disk) -> None:
        files.unlink(self.devices(instance.id), disk.serial)

    def resize(self, instance: Instance, disk: Disk, size: int) -> None:
        """Nothing to tell: the script sees the file itself."""

    def freeze(self, instance: Instance) -> None:
        processes.freeze(instance.id)

    def thaw(self, instance: Instance) -> None:
        processes.thaw(instance.id)

    def open_port(self, instance: Instance, port: int) -> None:
        """Nothing to open: the script listens on the instance's address itself."""

    def close_port(self, instance: Instance, port: int) -> None:
        """Nothing to close either."""

    def screenshot(self, instance: Instance, wake: bool) -> bytes | None:
        return None
