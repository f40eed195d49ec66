"""From a root to the disks of a source machine: as Debian's tools would leave them on AHCI, with no driver of virtio.

File systems are made here, on loop devices; LVM and RAID, which this kernel may not have, in the appliance.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.guest.osmatrix import networks, roots
from tests.guest.osmatrix.cells import Cell
from tests.guest.osmatrix.loaders import install_extlinux, install_grub_bios, install_grub_uefi, menu
from wavelift.guest.appliance import launched

MIB = 1 << 20
SIZE = 3072 * MIB
_RECIPE = ("cells.py", "loaders.py", "machines.py", "networks.py", "roots.py")
_ROOT_UUID = "5e1f0000-0000-4000-8000-00000000000a"
_BOOT_UUID = "5e1f0000-0000-4000-8000-00000000000b"
_ARRAY_UUID = "5e1f0000:00004000:80000000:0000000c"
_ESP_ID = "5E1F000D"


@dataclass(frozen=True)
class Part:
    """A partition: where it begins and how long it is, in bytes; `kind` for sfdisk."""

    name: str
    start: int
    size: int
    kind: str


def parts_of(cell: Cell) -> list[Part]:
    wanted = [("esp", 64 * MIB, "U")] if cell.firmware == "uefi" else []
    wanted += [("boot", 384 * MIB, "L")] if cell.boot else []
    found, at = [], MIB
    for name, size, kind in wanted:
        found.append(Part(name, at, size, kind))
        at += size
    kind = {"lvm": "V", "raid1": "R"}.get(cell.stack, "L")
    return [*found, Part("root", at, SIZE - MIB - at, kind)]


def build(cell: Cell) -> list[Path]:
    """The disks, made once per recipe."""
    digest = hashlib.sha256(repr(cell).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.name in _RECIPE:
            digest.update(path.read_bytes())
    folder = roots.BUILD / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    disks = [folder / f"disk{number}.img" for number in range(cell.disks)]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / "recipe"
        if not stamp.exists() or stamp.read_text() != digest.hexdigest():
            stamp.unlink(missing_ok=True)
            _make(cell, disks)
            stamp.write_text(digest.hexdigest())
    return disks


def _make(cell: Cell, disks: list[Path]) -> None:
    for disk in disks:
        disk.unlink(missing_ok=True)
        disk.touch()
        os.truncate(disk, SIZE)
        _partition(cell, disk)
    if cell.stack == "lvm":
        _make_group(cell, disks[0])
    with tempfile.TemporaryDirectory(dir=roots.BUILD) as name:
        root = Path(name) / "root"
        root.mkdir()
        roots.unpack(cell.suite, root)
        _configure(cell, root)
        _make_initramfs(cell, root)
        _make_file_systems(cell, disks[0], root, Path(name))
    if cell.stack == "raid1":
        _make_array(cell, disks)


def _partition(cell: Cell, disk: Path) -> None:
    table = "gpt" if cell.firmware == "uefi" else "dos"
    lines = [f"label: {table}"]
    for part in parts_of(cell):
        lines.append(f"start={part.start // 512}, size={part.size // 512}, type={part.kind}")
    subprocess.run(["sfdisk", "--quiet", str(disk)], input="\n".join(lines), text=True, check=True)


def _root_size(cell: Cell) -> int:
    """Of the file system: a group has its own metadata before it, an array after it."""
    size = parts_of(cell)[-1].size
    return size - {"lvm": 16 * MIB, "raid1": 4 * MIB}.get(cell.stack, 0)


def _make_group(cell: Cell, disk: Path) -> None:
    """With one volume, whose only extent begins right behind the group's metadata: at 1 MiB."""
    number = len(parts_of(cell))
    with launched([disk]) as appliance:
        handle = appliance.handle
        handle.pvcreate(f"/dev/sda{number}")
        handle.vgcreate("vg-0", [f"/dev/sda{number}"])
        handle.lvcreate("root", "vg-0", _root_size(cell) // MIB)


def _make_array(cell: Cell, disks: list[Path]) -> None:
    """Its metadata lies behind what is there: the file system on the first member stays as it is."""
    (part,) = parts_of(cell)
    first, second = disks
    with first.open("rb") as source, second.open("r+b") as target:
        source.seek(part.start)
        target.seek(part.start)
        shutil.copyfileobj(source, target, 8 * MIB)
    subprocess.run(["fallocate", "--dig-holes", str(second)], check=True)
    command = "mdadm --create /dev/md0 --run --assume-clean --metadata=1.0 --level=1 --raid-devices=2 "
    command += f"--homehost=matrix --name=0 --uuid={_ARRAY_UUID} /dev/sda1 /dev/sdb1 && mdadm --stop /dev/md0"
    with launched(disks) as appliance:
        appliance.handle.debug("sh", [command])


def _configure(cell: Cell, root: Path) -> None:
    (root / "etc/hostname").write_text(f"{cell.name}\n")
    subvolume = ",subvol=@rootfs" if cell.fs == "btrfs" else ""
    fstab = f"{root_device(cell)} / {cell.fs} defaults{subvolume} 0 1\n"
    for number, part in enumerate(parts_of(cell), 1):
        point, kind = {"esp": ("/boot/efi", "vfat"), "boot": ("/boot", "ext4")}.get(part.name, ("", ""))
        if point:
            (root / point[1:]).mkdir(exist_ok=True)
            fstab += f"/dev/sda{number} {point} {kind} defaults 0 2\n"
    (root / "etc/fstab").write_text(fstab)
    (root / "etc/mdadm").mkdir(exist_ok=True)
    if cell.stack == "raid1":
        conf = f"HOMEHOST <system>\nARRAY /dev/md0 metadata=1.0 UUID={_ARRAY_UUID} name=matrix:0\n"
        # Its monitor does not start without.
        conf += "MAILADDR root\n"
        (root / "etc/mdadm/mdadm.conf").write_text(conf)
    for second in [version for version in versions(root) if "-rt-" in version and cell.kernels == 1]:
        shutil.rmtree(root / "lib/modules" / second)
        for path in (root / "boot").glob(f"*-{second}"):
            path.unlink()
    networks.configure(root, cell)
    menu(cell, root, root_device(cell), _ROOT_UUID, _BOOT_UUID if cell.boot else _ROOT_UUID)


def versions(root: Path) -> list[str]:
    """The newest first, as boot loaders' menus have them."""
    return sorted((path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*")), reverse=True)


def root_device(cell: Cell) -> str:
    """As the source's configuration names it."""
    return {"lvm": "/dev/mapper/vg--0-root", "raid1": "/dev/md0"}.get(cell.stack, f"/dev/sda{len(parts_of(cell))}")


def _make_initramfs(cell: Cell, root: Path) -> None:
    (root / "etc/initramfs-tools/modules").write_text("".join(f"{name}\n" for name in roots.MODULES))
    for version in versions(root):
        image = f"/boot/initrd.img-{version}"
        (root / image[1:]).unlink(missing_ok=True)
        if cell.initramfs == "initramfs-tools":
            command = ["update-initramfs", "-c", "-k", version]
        else:
            modules = {"lvm": "lvm dm", "raid1": "mdraid"}.get(cell.stack, "")
            command = ["dracut", "--force", "--no-hostonly", "--omit", "plymouth network nfs iscsi fcoe nbd multipath"]
            command += ["--drivers", " ".join(roots.MODULES), "--add", f"base udev-rules rootfs-block {modules}"]
            # As an image made for the source's own hardware: dracut adds those of every disk otherwise.
            command += ["--omit-drivers", "virtio virtio_ring virtio_pci virtio_blk virtio_scsi virtio_net nvme"]
            # Without its configuration the array would be a stranger's, and be named as one: /dev/md127.
            command += ["--mdadmconf"] if cell.stack == "raid1" else []
            command += ["--kver", version, image]
        with _chroot(root):
            subprocess.run(["chroot", str(root), *command], check=True, capture_output=True, env=_PLAIN)


_PLAIN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


@contextmanager
def _chroot(root: Path) -> Iterator[None]:
    """With what the tools read of the kernel. /dev has no disks of this machine's."""
    subprocess.run(["mount", "-t", "proc", "proc", str(root / "proc")], check=True)
    (root / "dev").mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(root / "dev")], check=True)
    try:
        for name, minor in (("null", 3), ("zero", 5), ("urandom", 9)):
            os.mknod(root / "dev" / name, 0o666 | 0o020000, os.makedev(1, minor))
        (root / "dev/fd").symlink_to("/proc/self/fd")
        yield
    finally:
        for name in ("dev", "proc"):
            subprocess.run(["umount", str(root / name)], check=True)


def _make_file_systems(cell: Cell, disk: Path, root: Path, work: Path) -> None:
    parts = {part.name: part for part in parts_of(cell)}
    at = parts["root"].start + (MIB if cell.stack == "lvm" else 0)
    target = work / "target"
    target.mkdir()
    with _loop(disk, at, _root_size(cell)) as device:
        _format(cell.fs, device, _ROOT_UUID)
        with _mounted(device, target):
            inside = target
            if cell.fs == "btrfs":
                inside = target / "@rootfs"
                subprocess.run(["btrfs", "-q", "subvolume", "create", str(inside)], check=True)
            subprocess.run(["cp", "-a", f"{root}/.", str(inside)], check=True)
            if cell.boot:
                with _loop(disk, parts["boot"].start, parts["boot"].size) as other:
                    _format("ext4", other, _BOOT_UUID)
                    boot = work / "boot"
                    boot.mkdir()
                    with _mounted(other, boot):
                        for path in (inside / "boot").iterdir():
                            if path.name != "efi":
                                shutil.move(path, boot / path.name)
                        (boot / "efi").mkdir(exist_ok=True)
                        if cell.loader == "extlinux":
                            install_extlinux(boot / "extlinux")
            elif cell.loader == "extlinux":
                install_extlinux(inside / "boot/extlinux")
    if cell.loader == "extlinux":
        with disk.open("r+b") as file:
            file.write(Path("/usr/lib/EXTLINUX/mbr.bin").read_bytes()[:440])
        subprocess.run(["sfdisk", "--quiet", "--activate", str(disk), "1"], check=True)
    elif cell.firmware == "bios":
        prefix = ("" if cell.boot else "/boot") if cell.fs != "btrfs" or cell.boot else "/@rootfs/boot"
        install_grub_bios(disk, _BOOT_UUID if cell.boot else _ROOT_UUID, f"{prefix}/grub", work)
    else:
        prefix = "" if cell.boot else ("/@rootfs/boot" if cell.fs == "btrfs" else "/boot")
        with _loop(disk, parts["esp"].start, parts["esp"].size) as device:
            subprocess.run(["mkfs.vfat", "-i", _ESP_ID, device], check=True, capture_output=True)
            install_grub_uefi(device, _BOOT_UUID if cell.boot else _ROOT_UUID, f"{prefix}/grub", work)


def _format(fs: str, device: str, uuid: str) -> None:
    command = {
        # What extlinux, and GRUB 2.06, cannot read is left out.
        "ext4": ["mkfs.ext4", "-q", "-F", "-O", "^64bit,^metadata_csum,^orphan_file", "-U", uuid],
        "xfs": ["mkfs.xfs", "-q", "-f", "-i", "nrext64=0", "-m", f"uuid={uuid},bigtime=0,inobtcount=0"],
        "btrfs": ["mkfs.btrfs", "-q", "-f", "-U", uuid],
    }[fs]
    done = subprocess.run([*command, device], capture_output=True, text=True, check=False)
    if done.returncode and fs == "xfs":
        command.remove("-i")
        command.remove("nrext64=0")
        done = subprocess.run([*command, device], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr}")


@contextmanager
def _loop(disk: Path, offset: int, size: int) -> Iterator[str]:
    command = ["losetup", "--find", "--show", "--offset", str(offset), "--sizelimit", str(size), str(disk)]
    device = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextmanager
def _mounted(device: str, point: Path) -> Iterator[None]:
    subprocess.run(["mount", device, str(point)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(point)], check=True)
