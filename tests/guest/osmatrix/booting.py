"""A machine of the matrix under QEMU, and what it tells of itself."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.guest.osmatrix.cells import Cell
from tests.machine.qemu import AHCI, Machine

_FIRMWARE = Path("/usr/share/OVMF")
_TOLD = re.compile(r"MATRIX-BEGIN(.*?)MATRIX-END", re.S)
# How a system says that it does not find its disks, and UEFI that no disk has a loader for it.
STUCK = "|".join(
    (
        *("ALERT!", r"\(initramfs\)", "[Ee]mergency [Ss]hell", "emergency mode", "Kernel panic", "dracut:/#"),
        *("Dependency failed", ">>Start (?:PXE|HTTP)"),
    )
)


@dataclass
class Told:
    hostname: str = ""
    kernel: str = ""
    gateway: str = ""
    cards: dict[str, str] = field(default_factory=dict)
    mounts: dict[str, tuple[str, str]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)


def told(console: str) -> Told | None:
    found = _TOLD.search(console)
    if found is None:
        return None
    about = Told()
    for line in re.findall(r"^(\w+)=(.*?)\s*$", found[1].replace("\r", ""), re.M):
        name, value = line
        if name == "card":
            card, _, addresses = value.partition(" ")
            about.cards[card] = addresses
        elif name == "mount":
            point, device, kind = value.split()[:3]
            about.mounts[point] = (device, kind)
        elif name in ("failed", "module"):
            (about.failed if name == "failed" else about.modules).append(value)
        else:
            setattr(about, name, value)
    return about


@contextmanager
def boot(cell: Cell, disks: Sequence[Path], bus: str, folder: Path) -> Iterator[Machine]:
    """Nothing is written to the disks."""
    folder.mkdir(parents=True, exist_ok=True)
    console = folder / "console.log"
    console.unlink(missing_ok=True)
    command = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"]
    command += ["-m", "1024", "-nodefaults", "-no-user-config", "-display", "none", "-vga", "std", "-no-reboot"]
    command += ["-serial", f"file:{console}", "-monitor", "none"]
    if cell.firmware == "uefi":
        variables = folder / "vars.fd"
        shutil.copy(_FIRMWARE / "OVMF_VARS_4M.fd", variables)
        command += ["-drive", f"if=pflash,format=raw,readonly=on,file={_FIRMWARE / 'OVMF_CODE_4M.fd'}"]
        command += ["-drive", f"if=pflash,format=raw,file={variables}"]
    for number, disk in enumerate(disks):
        command += ["-drive", f"file={disk},format=raw,if=none,id=disk{number},snapshot=on"]
        name = f"ide-hd,bus=ide.{number}" if bus == AHCI else "virtio-blk-pci"
        command += ["-device", f"{name},drive=disk{number}"]
    for number in range(len(cell.cards)):
        command += ["-netdev", f"user,id=net{number},restrict=on"]
        command += ["-device", f"{'e1000' if bus == AHCI else 'virtio-net-pci'},netdev=net{number},romfile="]
    with (folder / "qemu.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield Machine(process, console, 0)
        finally:
            process.kill()
            process.wait()


def outcome(machine: Machine, seconds: float) -> Told | str:
    """What it tells once it is up, or the line that says why it never will be."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        console = machine.console()
        if (about := told(console)) is not None:
            return about
        if found := re.search(rf"^.*(?:{STUCK}).*$", console, re.M):
            return found[0].strip()
        if machine.process.poll() is not None:
            break
        time.sleep(0.5)
    lines = [line for line in machine.console().splitlines() if line.strip()]
    return f"nothing within {seconds:.0f} s; the console ends with: {' / '.join(lines[-6:])}"
