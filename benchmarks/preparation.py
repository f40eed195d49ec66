"""Preparing the demo's machine to boot on virtio, beside virt-v2v-in-place: seconds, and whether it boots.

python -m benchmarks.preparation --folder /var/tmp --runs 3

Each works on copies of its own, in turns. Needs Debian's virt-v2v.
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

from demo.machine import MachineFiles, build
from tests.machine.qemu import VIRTIO, ConsoleTimeout, boot

REPOSITORY = Path(__file__).parents[1]
READY = r"DEMO-READY demo-web"
BOOT_SECONDS = 240
_DOMAIN = """\
<domain type='kvm'><name>demo</name><memory unit='MiB'>1024</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os><features><acpi/></features><devices>
{disks}
</devices></domain>
"""
_DISK = """\
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{path}'/>
<target dev='sd{letter}' bus='sata'/></disk>"""

Prepare = Callable[[list[Path], Path], None]


def ours(disks: list[Path], _: Path) -> None:
    subprocess.run([sys.executable, "-m", "wavelift.guest", *map(str, disks)], check=True, stdout=subprocess.DEVNULL)


def virt_v2v(disks: list[Path], folder: Path) -> None:
    described = "\n".join(_DISK.format(path=path, letter=letter) for path, letter in zip(disks, "abcdef", strict=False))
    domain = folder / "domain.xml"
    domain.write_text(_DOMAIN.format(disks=described))
    direct = {**os.environ, "LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}
    command = ["virt-v2v-in-place", "-i", "libvirtxml", str(domain)]
    with (folder / "virt-v2v.log").open("wb") as log:
        subprocess.run(command, check=True, env=direct, stdout=log, stderr=log)


TOOLS: dict[str, Prepare] = {"wavelift": ours, "virt-v2v-in-place": virt_v2v}


def copied(machine: MachineFiles, folder: Path) -> list[Path]:
    disks = [folder / disk.name for disk in (machine.system, machine.data)]
    for source, target in zip((machine.system, machine.data), disks, strict=True):
        subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)
    return disks


def boots(disks: list[Path], folder: Path) -> str:
    with boot(disks, VIRTIO, folder) as machine:
        try:
            machine.wait_for(READY, BOOT_SECONDS)
        except ConsoleTimeout:
            lines = [line.strip() for line in machine.console().splitlines() if line.strip()]
            alerts = [line for line in lines if "ALERT" in line or "does not exist" in line or "panic" in line]
            return f"no: {(alerts or lines or ['nothing on the console'])[-1]}"
        return f"in {machine.seconds:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    machine = build(REPOSITORY / ".wavelift/build/machine")
    seconds: dict[str, list[float]] = {name: [] for name in TOOLS}
    booted = {}
    for number in range(args.runs):
        for name, prepare in TOOLS.items():
            folder = Path(tempfile.mkdtemp(dir=args.folder, prefix="wavelift-preparation-"))
            try:
                disks = copied(machine, folder)
                began = time.monotonic()
                prepare(disks, folder)
                seconds[name].append(time.monotonic() - began)
                if number == 0:
                    booted[name] = boots(disks, folder / "boot")
            finally:
                shutil.rmtree(folder)
    best = statistics.median(seconds["virt-v2v-in-place"])
    for name, taken in seconds.items():
        median = statistics.median(taken)
        span = f"{min(taken):.1f} to {max(taken):.1f}"
        print(f"| {name} | {median:.1f} ({span}) | {median / best:.2f} | {booted[name]} |", flush=True)


if __name__ == "__main__":
    main()
