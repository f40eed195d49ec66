"""A machine of a kernel and this machine's own files, read-only: it runs one Python script as root, and ends.

Its kernel is Debian's, so it has what a test machine may lack: device-mapper, file systems to freeze.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

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
chroot /host modprobe -a {modules}
chroot /host {python} {script} {arguments}
echo the guest ends
poweroff -f
"""


def command(folder: Path, script: Path, modules: Sequence[str], *arguments: str) -> list[str]:
    """Its command line, without disks; console on stdout. Needs `folder` for its initial file system."""
    kernel = max(Path("/boot").glob("vmlinuz-*"))
    root = folder / "root"
    for name in ("bin", "proc", "dev", "host", "modules"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    known: list[str] = []
    for module in MODULES:
        show = ["/sbin/modprobe", "--set-version", kernel.name.removeprefix("vmlinuz-"), "--show-depends", module]
        listed = subprocess.run(show, capture_output=True, text=True, check=True).stdout
        known += [path for path in re.findall(r"^insmod (\S+)", listed, re.MULTILINE) if path not in known]
    for index, path in enumerate(known):
        shutil.copy(path, root / f"modules/{index:02}-{Path(path).name}")
    init = root / "init"
    init.write_text(
        INIT.format(
            repository=REPOSITORY,
            modules=" ".join(modules),
            python=sys.executable,
            script=script,
            arguments=" ".join(arguments),
        )
    )
    init.chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    pack = ["cpio", "--quiet", "-o", "-H", "newc"]
    initrd = subprocess.run(pack, cwd=root, input=names.encode(), stdout=subprocess.PIPE, check=True).stdout
    (folder / "initrd").write_bytes(initrd)
    return [
        *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "640"),
        *("-display", "none", "-nodefaults", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(kernel), "-initrd", str(folder / "initrd"), "-append", "console=ttyS0 quiet"),
        *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
    ]
