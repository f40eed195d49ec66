"""Preparing machines of the OS matrix to boot on virtio, beside virt-v2v-in-place: seconds, and whether they boot.

python -m benchmarks.preparation --folder /var/tmp --runs 3 --machine deb12-mbr-ext4 --machine deb12-lvm-xfs

Each tool works on copies of its own, in turns. Needs Debian's virt-v2v, and root to build the machines.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.guest.osmatrix.booting import Told, boot, outcome
from tests.guest.osmatrix.cells import CELLS, Cell
from tests.guest.osmatrix.machines import build
from tests.machine.qemu import VIRTIO

BOOT_SECONDS = 300
_DOMAIN = """\
<domain type='kvm'><name>machine</name><memory unit='MiB'>1024</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os><features><acpi/></features><devices>
{disks}
</devices></domain>
"""
_DISK = """\
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{path}'/>
<target dev='sd{letter}' bus='sata'/></disk>"""

Prepare = Callable[[list[Path], Path], str]


def ours(disks: list[Path], _: Path) -> str:
    command = [sys.executable, "-m", "wavelift.guest", *map(str, disks)]
    return _ended(subprocess.run(command, check=False, stdout=subprocess.DEVNULL))


def virt_v2v(disks: list[Path], folder: Path) -> str:
    described = "\n".join(_DISK.format(path=path, letter=letter) for path, letter in zip(disks, "abcdef", strict=False))
    domain = folder / "domain.xml"
    domain.write_text(_DOMAIN.format(disks=described))
    direct = {**os.environ, "LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}
    command = ["virt-v2v-in-place", "-i", "libvirtxml", str(domain)]
    with (folder / "virt-v2v.log").open("wb") as log:
        done = subprocess.run(command, check=False, env=direct, stdout=log, stderr=log)
    said = (folder / "virt-v2v.log").read_text(errors="replace").strip().splitlines()
    errors = [line for line in said if "error:" in line]
    return _ended(done) + (f", {errors[0]}" if errors else "")


TOOLS: dict[str, Prepare] = {"wavelift": ours, "virt-v2v-in-place": virt_v2v}


def _ended(done: subprocess.CompletedProcess[bytes]) -> str:
    return f"exit status {done.returncode}"


def boots(cell: Cell, disks: list[Path], folder: Path) -> str:
    with boot(cell, disks, VIRTIO, folder) as machine:
        found = outcome(machine, BOOT_SECONDS)
        return f"in {machine.seconds:.0f} s" if isinstance(found, Told) else f"no: {found}"


def measure(cell: Cell, folder: Path, runs: int) -> None:
    source = build(cell)
    seconds: dict[str, list[float]] = {name: [] for name in TOOLS}
    shown: dict[str, str] = {}
    for number in range(runs):
        for name, prepare in TOOLS.items():
            work = Path(tempfile.mkdtemp(dir=folder, prefix="wavelift-preparation-"))
            try:
                disks = [work / disk.name for disk in source]
                for disk, copy in zip(source, disks, strict=True):
                    subprocess.run(["cp", "--sparse=always", str(disk), str(copy)], check=True)
                began = time.monotonic()
                ended = prepare(disks, work)
                seconds[name].append(time.monotonic() - began)
                if number == 0:
                    shown[name] = f"{ended} | {boots(cell, disks, work / 'boot')}"
            finally:
                shutil.rmtree(work)
    peer = statistics.median(seconds["virt-v2v-in-place"])
    for name, taken in seconds.items():
        median = statistics.median(taken)
        span = f"{min(taken):.1f} to {max(taken):.1f}"
        print(f"| {cell.name} | {name} | {median:.1f} ({span}) | {median / peer:.2f} | {shown[name]} |", flush=True)


def main() -> None:
    machines = {cell.name: cell for cell in CELLS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--machine", action="append", choices=machines, help="default: deb12-mbr-ext4")
    args = parser.parse_args()
    print("| machine | tool | s | to virt-v2v | ended | boots on virtio |\n|---|---|---|---|---|---|")
    for name in args.machine or ["deb12-mbr-ext4"]:
        measure(machines[name], args.folder, args.runs)


if __name__ == "__main__":
    main()
