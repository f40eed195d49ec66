"""Instances as QEMU machines, talked to by QEMU's control socket and the guest's agent."""

import io
import json
import logging
import shutil
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image as Picture

from wavelift.localcloud.disks import DiskFiles
from wavelift.localcloud.entities import REGION, VPC, Disk, Instance
from wavelift.localcloud.runtimes import accelerator, processes
from wavelift.localcloud.runtimes.base import Folders, RuntimeFailure, environment
from wavelift.localcloud.runtimes.guests import GuestAgent
from wavelift.localcloud.runtimes.processes import Children
from wavelift.localcloud.runtimes.qemu import (
    FIRMWARE_VARIABLES,
    Machine,
    MachineDisk,
    command_line,
    cores_of,
    disk_device,
    disk_node,
    forward,
    memory_of,
    node_name,
)
from wavelift.localcloud.runtimes.qmp import Qmp, QmpError

LOG = logging.getLogger(__name__)

START_LIMIT = 15.0
UNPLUG_LIMIT = 10.0
QUIT_LIMIT = 3.0


def can_listen(address: str, port: int) -> bool:
    """Low ports may be out of reach for the user who runs this; a machine must start all the same."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            LOG.warning("%s:%d cannot be forwarded: %s", address, port, error)
            return False
    return True


def metadata_of(instance: Instance) -> dict[str, str]:
    values = {
        "meta-data/instance-id": instance.id,
        "meta-data/instance/instance-type": instance.type,
        "meta-data/instance/instance-name": instance.name,
        "meta-data/hostname": instance.host_name,
        "meta-data/image-id": instance.image,
        "meta-data/mac": instance.mac,
        "meta-data/private-ipv4": instance.private_address,
        "meta-data/region-id": REGION,
        "meta-data/vpc-id": VPC,
        "meta-data/vswitch-id": instance.vswitch,
        "meta-data/zone-id": instance.zone,
    }
    return values | ({"user-data": instance.user_data} if instance.user_data else {})


def _firmware_variables(folder: Path) -> Path:
    """What the guest keeps in its firmware (boot entries) stays with the instance."""
    path = folder / "uefi-variables.fd"
    if not path.exists():
        partial = path.with_suffix(".partial")
        shutil.copyfile(FIRMWARE_VARIABLES, partial)
        partial.rename(path)
    return path


class Machines:
    def __init__(self, folders: Folders, disks: DiskFiles, children: Children, sockets: Path) -> None:
        # Set when the cloud ends: nobody waits any longer for a guest to shut down by itself.
        self.hurry = threading.Event()
        self._folders = folders
        self._disks = disks
        self._children = children
        self._sockets = sockets
        self.agent = GuestAgent(self._agent, self.talk)

    def _agent(self, instance: str) -> Path:
        return self._sockets / f"{instance}.agent"

    def _control(self, instance: str) -> Path:
        return self._sockets / f"{instance}.sock"

    def _machine_disk(self, disk: Disk) -> MachineDisk:
        return MachineDisk(disk.serial, self._disks.disk(disk.id))

    def start(self, instance: Instance, disks: Sequence[Disk], ports: Sequence[int]) -> tuple[int, int]:
        folder = self._folders.of(instance.id)
        machine = Machine(
            id=instance.id,
            cores=cores_of(instance.type),
            memory=memory_of(instance.type),
            mac=instance.mac,
            address=instance.address,
            ports=tuple(port for port in ports if can_listen(instance.address, port)),
            disks=tuple(self._machine_disk(disk) for disk in disks),
            console=self._folders.console(instance.id),
            control=self._control(instance.id),
            agent=self._agent(instance.id),
            metadata=folder / "metadata.json",
            variables=_firmware_variables(folder) if instance.boot_mode == "UEFI" else None,
        )
        machine.metadata.write_text(json.dumps(metadata_of(instance)))
        # Whoever cleans /tmp may have taken the folder away.
        self._sockets.mkdir(mode=0o700, exist_ok=True)
        machine.control.unlink(missing_ok=True)
        machine.agent.unlink(missing_ok=True)
        output = folder / "qemu.log"
        command = command_line(machine, accelerator.arguments())
        pid, ticks = self._children.spawn(command, folder, environment(instance), output)
        deadline = time.monotonic() + START_LIMIT
        while processes.alive(pid, ticks):
            try:
                with Qmp(machine.control):
                    return pid, ticks
            except (OSError, QmpError):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)
        processes.end(instance.id, 0)
        raise RuntimeFailure(f"QEMU did not start: {output.read_text(errors='replace')[-1000:]}")

    def answers(self, instance: str) -> bool:
        try:
            with Qmp(self._control(instance), timeout=3.0):
                return True
        except (OSError, QmpError) as error:
            LOG.warning("machine %s does not answer: %s", instance, error)
            return False

    def stop(self, instance: Instance, grace: float) -> None:
        if processes.alive(instance.pid, instance.ticks):
            if grace > 0:
                self._ask_to_end(instance, "system_powerdown", grace)
            self._ask_to_end(instance, "quit", QUIT_LIMIT)
        processes.end(instance.id, 0)
        self._control(instance.id).unlink(missing_ok=True)
        self._agent(instance.id).unlink(missing_ok=True)

    def _ask_to_end(self, instance: Instance, command: str, limit: float) -> None:
        if not processes.alive(instance.pid, instance.ticks):
            return
        try:
            with Qmp(self._control(instance.id), timeout=3.0) as qmp:
                qmp.execute(command)
        except (OSError, QmpError) as error:
            LOG.warning("machine %s: %s: %s", instance.id, command, error)
            return
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline and processes.alive(instance.pid, instance.ticks):
            if command != "quit" and self.hurry.is_set():
                return
            time.sleep(0.02)

    def attach(self, instance: Instance, disk: Disk) -> None:
        machine_disk = self._machine_disk(disk)
        with self.talk(instance) as qmp:
            if node_name(machine_disk) in self._plugged(qmp):
                return
            # One that is left of an attempt cut short may not know the disk's size any more.
            self._close(qmp, node_name(machine_disk))
            qmp.execute("blockdev-add", disk_node(machine_disk))
            try:
                qmp.execute("device_add", {"driver": "virtio-blk-pci", **disk_device(machine_disk)})
            except QmpError:
                self._close(qmp, node_name(machine_disk))
                raise

    def detach(self, instance: Instance, disk: Disk) -> None:
        """The guest has to let go of the disk; one that does not answer keeps it."""
        name = node_name(self._machine_disk(disk))
        with self.talk(instance) as qmp:
            if name in self._plugged(qmp):
                qmp.execute("device_del", {"id": name})
                if not qmp.wait_event("DEVICE_DELETED", name, UNPLUG_LIMIT):
                    raise RuntimeFailure(f"the guest of {instance.id} did not let go of {disk.id}")
            self._close(qmp, name)

    @staticmethod
    def _close(qmp: Qmp, node: str) -> None:
        nodes = qmp.execute("query-named-block-nodes", {"flat": True})
        if any(each["node-name"] == node for each in nodes):
            qmp.execute("blockdev-del", {"node-name": node})

    def resize(self, instance: Instance, disk: Disk, size: int) -> None:
        with self.talk(instance) as qmp:
            qmp.execute("block_resize", {"node-name": node_name(self._machine_disk(disk)), "size": size})

    @staticmethod
    def _plugged(qmp: Qmp) -> set[str]:
        return {str(entry["name"]) for entry in qmp.execute("qom-list", {"path": "/machine/peripheral"})}

    def freeze(self, instance: Instance) -> None:
        with self.talk(instance) as qmp:
            qmp.execute("stop")

    def thaw(self, instance: Instance) -> None:
        with self.talk(instance) as qmp:
            qmp.execute("cont")

    def open_port(self, instance: Instance, port: int) -> None:
        if not can_listen(instance.address, port):
            return
        with self.talk(instance) as qmp:
            answer = qmp.human(f"hostfwd_add net0 {forward(instance.address, port)}").strip()
        if answer:
            raise RuntimeFailure(f"port {port} of {instance.id} could not be opened: {answer}")

    def close_port(self, instance: Instance, port: int) -> None:
        with self.talk(instance) as qmp:
            qmp.human(f"hostfwd_remove net0 tcp:{instance.address}:{port}")

    def talk(self, instance: Instance) -> Qmp:
        """The machine's own control socket; one conversation at a time."""
        return Qmp(self._control(instance.id))

    def forwards(self, instance: Instance) -> str:
        """QEMU's own table of forwarded ports."""
        with self.talk(instance) as qmp:
            return qmp.human("info usernet")

    def screenshot(self, instance: Instance, wake: bool) -> bytes | None:
        target = self._folders.of(instance.id) / "screen.png"
        with self.talk(instance) as qmp:
            if wake:
                qmp.execute("send-key", {"keys": [{"type": "qcode", "data": "shift"}]})
            qmp.execute("screendump", {"filename": str(target), "format": "png"})
        out = io.BytesIO()
        with Picture.open(target) as picture:
            picture.convert("RGB").save(out, "JPEG", quality=85)
        return out.getvalue()
