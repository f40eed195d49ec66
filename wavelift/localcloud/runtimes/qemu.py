"""QEMU's command line, as a pure function of the machine it is for.

virtio only, so an image without virtio drivers does not boot, as in the cloud. User networking gives a guest DHCP and
a way out; nothing leads in but the forwarded ports, from the instance's loopback address. The guest's network is the
one that holds the metadata service's address: QEMU answers for no address outside it.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wavelift.localcloud.entities import INSTANCE_TYPES
from wavelift.localcloud.runtimes import accelerator, metadata

MEMORY_LIMIT = 1024  # MiB
CORE_LIMIT = 2
GUEST_NETWORK = "100.100.100.0/24"
METADATA_SERVICE = "100.100.100.200"
AGENT_PORT = "org.qemu.guest_agent.0"
AGENT_CHANNEL = "agent"
FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
FIRMWARE_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")


@dataclass(frozen=True)
class MachineDisk:
    serial: str
    path: Path


@dataclass(frozen=True)
class Machine:
    id: str
    cores: int
    memory: int  # MiB
    mac: str
    address: str
    ports: tuple[int, ...]
    disks: tuple[MachineDisk, ...]  # the one it boots from first
    console: Path
    control: Path
    agent: Path
    metadata: Path
    variables: Path | None  # the UEFI variables of this machine; None: it boots by BIOS


def memory_of(instance_type: str) -> int:
    """A machine gets fewer resources than its type names: several share this host."""
    return min(INSTANCE_TYPES[instance_type].memory * 1024, MEMORY_LIMIT)


def cores_of(instance_type: str) -> int:
    return min(INSTANCE_TYPES[instance_type].cores, CORE_LIMIT)


def command_line(machine: Machine, accelerate: Sequence[str]) -> list[str]:
    forwards = "".join(f",hostfwd={forward(machine.address, port)}" for port in machine.ports)
    command = [
        *(accelerator.QEMU, "-name", machine.id, "-machine", "pc", *accelerate),
        *("-smp", str(machine.cores), "-m", str(machine.memory)),
        *("-nodefaults", "-no-user-config", "-display", "none", "-vga", "std", "-rtc", "base=utc"),
        *("-boot", "strict=on"),
        *("-chardev", f"file,id=console,path={escape(machine.console)},append=on", "-serial", "chardev:console"),
        *("-qmp", f"unix:{escape(machine.control)},server=on,wait=off"),
        *("-device", "virtio-rng-pci"),
        *("-netdev", f"user,id=net0,net={GUEST_NETWORK},guestfwd={_metadata_service(machine)}{forwards}"),
        *("-device", f"virtio-net-pci,netdev=net0,mac={machine.mac},romfile="),
        *("-chardev", f"socket,id={AGENT_CHANNEL},path={escape(machine.agent)},server=on,wait=off"),
        *("-device", "virtio-serial-pci", "-device", f"virtserialport,chardev={AGENT_CHANNEL},name={AGENT_PORT}"),
    ]
    if machine.variables is not None:
        command += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={FIRMWARE}"]
        command += ["-drive", f"if=pflash,unit=1,format=raw,file={escape(machine.variables)}"]
    for index, disk in enumerate(machine.disks):
        device = {"driver": "virtio-blk-pci", **disk_device(disk)}
        if index == 0:
            device["bootindex"] = 1
        command += ["-blockdev", json.dumps(disk_node(disk)), "-device", json.dumps(device)]
    return command


def _metadata_service(machine: Machine) -> str:
    """QEMU runs the program for each connection: the service lives as long as the machine does."""
    program = shlex.join([sys.executable, "-I", "-S", metadata.__file__, str(machine.metadata)])
    return f"tcp:{METADATA_SERVICE}:80-cmd:{program.replace(',', ',,')}"


def escape(path: Path) -> str:
    """A comma in a value is written twice."""
    return str(path).replace(",", ",,")


def forward(address: str, port: int) -> str:
    return f"tcp:{address}:{port}-:{port}"


def node_name(disk: MachineDisk) -> str:
    return f"disk-{disk.serial}"


def disk_node(disk: MachineDisk) -> dict[str, object]:
    return {
        "driver": "raw",
        "node-name": node_name(disk),
        "discard": "unmap",
        "file": {"driver": "file", "filename": str(disk.path), "discard": "unmap"},
    }


def disk_device(disk: MachineDisk) -> dict[str, object]:
    # A guest that cannot write since this host is full hears of an error; by itself QEMU would stop it for ever.
    return {"drive": node_name(disk), "id": node_name(disk), "serial": disk.serial, "werror": "report"}
