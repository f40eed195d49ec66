"""Logical volumes: the plans on what LVM really printed, the rest in a machine whose kernel has device-mapper."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import lvm_guest

REPOSITORY = Path(__file__).parents[2]
# What the initial file system needs; the rest is loaded from this machine's own.
MODULES = ("virtio_pci", "virtio_blk", "9pnet_virtio", "9p")
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in /modules/*.ko; do insmod $module; done
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=262144 host /host
mount -t proc proc /host/proc
mount -t sysfs sys /host/sys
mount -t devtmpfs dev /host/dev
mount -t tmpfs tmp /host/tmp
mount -t tmpfs run /host/run
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LVM_SYSTEM_DIR=/tmp/lvm LVM_SUPPRESS_FD_WARNINGS=1 PYTHONPATH={repository}
export PYTHONDONTWRITEBYTECODE=1
chroot /host modprobe -a dm_mod dm_snapshot crc32c_generic ext4
chroot /host {python} {script} /dev/vda
echo the guest ends
poweroff -f
"""


def machine(folder: Path) -> list[str]:
    """The command line of a machine that runs the scenarios over this machine's files, read-only, and ends."""
    kernel = max(Path("/boot").glob("vmlinuz-*"))
    root = folder / "root"
    for name in ("bin", "proc", "dev", "host", "modules"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    known: list[str] = []
    for module in MODULES:
        command = ["/sbin/modprobe", "--set-version", kernel.name.removeprefix("vmlinuz-"), "--show-depends", module]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        known += [path for path in re.findall(r"^insmod (\S+)", listed, re.MULTILINE) if path not in known]
    for index, path in enumerate(known):
        shutil.copy(path, root / f"modules/{index:02}-{Path(path).name}")
    init = root / "init"
    init.write_text(INIT.format(repository=REPOSITORY, python=sys.executable, script=lvm_guest.__file__))
    init.chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    pack = ["cpio", "--quiet", "-o", "-H", "newc"]
    initrd = subprocess.run(pack, cwd=root, input=names.encode(), stdout=subprocess.PIPE, check=True).stdout
    (folder / "initrd").write_bytes(initrd)
    with (folder / "disk").open("wb") as file:
        file.truncate(64 << 20)
    return [
        *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "640"),
        *("-display", "none", "-nodefaults", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(kernel), "-initrd", str(folder / "initrd"), "-append", "console=ttyS0 quiet"),
        *("-drive", f"file={folder / 'disk'},format=raw,if=virtio"),
        *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
    ]


@pytest.mark.slow
def test_logical_volumes_under_a_kernel_that_has_them(tmp_path: Path) -> None:
    done = subprocess.run(machine(tmp_path), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    told = re.findall(r"^done: (\w+)", done.stdout, re.MULTILINE)
    assert told == [scenario.__name__ for scenario in lvm_guest.SCENARIOS], done.stdout + done.stderr
