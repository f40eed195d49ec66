"""A small Linux that boots by UEFI: Debian's kernel, busybox, and the QEMU guest agent. No disk but its own is touched.

The firmware's shell finds `startup.nsh` on the disk, says something, and starts the kernel.
"""

import re
import shutil
import subprocess
from pathlib import Path

GREETING = "the firmware speaks"
READY = "the guest is ready"
MODULES = ("virtio_pci", "virtio_console", "virtio_blk", "virtio_net", "button", "evdev")
AGENT = "qemu-ga"
SIZE = 128 * 1024**2

STARTUP = f"""echo {GREETING}
fs0:
linux.efi initrd=\\initrd console=ttyS0 quiet rdinit=/init
"""

INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*.ko; do insmod $module; done
ip link set lo up
ip link set eth0 up
ip address add 100.100.100.15/24 dev eth0
for name in /sys/class/virtio-ports/*/name; do
  [ "$(cat $name)" = org.qemu.guest_agent.0 ] && port=/dev/$(basename $(dirname $name))
done
{AGENT} --method virtio-serial --path $port --statedir /run </dev/null &
acpid -f -d >/dev/null 2>&1 &
wget -q -O - http://100.100.100.200/latest/user-data
echo
echo {READY}
exec sleep 100000
"""

POWER_BUTTON = """#!/bin/sh
echo the guest ends >/dev/console
poweroff -f
"""


def build(disk: Path, folder: Path) -> None:
    """Write the guest onto a disk's file; the disk stays as large as it is."""
    kernel = max(Path("/boot").glob("vmlinuz-*"))
    root = folder / "root"
    for name in ("bin", "proc", "sys", "dev", "root", "tmp", "run", "modules", "etc/acpi/PWRF"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    _program(root, Path(found) if (found := shutil.which(AGENT, path="/usr/sbin:/usr/bin")) else Path(AGENT))
    _modules(root / "modules", kernel.name.removeprefix("vmlinuz-"))
    _script(root / "init", INIT)
    _script(root / "etc/acpi/PWRF/00000080", POWER_BUTTON)
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    initrd = subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc"], cwd=root, input=names.encode(), stdout=subprocess.PIPE, check=True
    )
    (folder / "initrd").write_bytes(initrd.stdout)
    (folder / "startup.nsh").write_text(STARTUP)
    image = folder / "fat"
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mformat", "-i", image, "-F", "::"], check=True)
    files = [folder / "startup.nsh", folder / "initrd"]
    subprocess.run(["mcopy", "-i", image, *files, "::"], check=True)
    subprocess.run(["mcopy", "-i", image, kernel, "::linux.efi"], check=True)
    with image.open("rb") as source, disk.open("r+b") as target:
        shutil.copyfileobj(source, target)


def _program(root: Path, program: Path) -> None:
    shutil.copy(program, root / "bin")
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"(?:=> )?(/\S+)", listed):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)


def _modules(target: Path, version: str) -> None:
    """In the order in which they load."""
    known: list[str] = []
    for module in MODULES:
        command = ["/sbin/modprobe", "--set-version", version, "--show-depends", module]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        known += [path for path in re.findall(r"^insmod (\S+)", listed, re.MULTILINE) if path not in known]
    for index, path in enumerate(known):
        shutil.copy(path, target / f"{index:02}-{Path(path).name}")


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
