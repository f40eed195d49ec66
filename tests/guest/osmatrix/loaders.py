"""Boot loaders of a machine: their menus, as Debian's tools write them, and their parts before the file systems."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.guest.osmatrix.cells import Cell

_GRUB = Path("/usr/lib/grub")
_MODULES = ("part_msdos", "part_gpt", "ext2", "xfs", "btrfs", "lvm", "mdraid1x", "normal", "linux", "search")
_MODULES += ("search_fs_uuid", "configfile", "echo", "test", "all_video", "gzio", "minicmd")
_SECTOR = 512


def menu(cell: Cell, root: Path, device: str, root_uuid: str, boot_uuid: str) -> None:
    """`device` is how the kernel is told of /. `boot_uuid`: of the file system where kernels are."""
    below = "" if cell.boot else ("/@rootfs/boot" if cell.fs == "btrfs" else "/boot")
    flags = "rootflags=subvol=@rootfs " if cell.fs == "btrfs" else ""
    console = "console=tty0 console=ttyS0,115200" if cell.console else "quiet"
    if cell.initramfs == "dracut":
        flags += "rd.retry=20 " + {"lvm": "rd.lvm.vg=vg-0 ", "raid1": "rd.auto "}.get(cell.stack, "")
    arguments = f"root={device} ro {flags}{console}"
    kernels = sorted((path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*")), reverse=True)
    if cell.loader == "extlinux":
        _extlinux_menu(root, kernels, below if not cell.boot else "", arguments)
        return
    text = "set default=0\nset timeout=1\nserial --unit=0 --speed=115200\n"
    text += "terminal_input console\nterminal_output console\n"
    for version in kernels:
        text += f"menuentry 'Debian GNU/Linux, with Linux {version}' --class debian {{\n"
        text += f"\tsearch --no-floppy --fs-uuid --set=root {boot_uuid}\n"
        text += f"\tlinux\t{below}/vmlinuz-{version} {arguments}\n\tinitrd\t{below}/initrd.img-{version}\n}}\n"
    folder = root / "boot/grub"
    folder.mkdir(exist_ok=True)
    (folder / "grub.cfg").write_text(text)
    shutil.copytree(
        _GRUB / ("i386-pc" if cell.firmware == "bios" else "x86_64-efi"),
        folder / ("i386-pc" if cell.firmware == "bios" else "x86_64-efi"),
        ignore=shutil.ignore_patterns("*.exec", "*.module", "gfxterm_*", "functional_test*"),
    )
    (folder / "device.map").write_text("(hd0)\t/dev/disk/by-id/ata-VMware_Virtual_SATA_Hard_Drive_01\n")
    default = f'GRUB_DEFAULT=0\nGRUB_TIMEOUT=1\nGRUB_CMDLINE_LINUX_DEFAULT="{flags}{console}"\nGRUB_CMDLINE_LINUX=""\n'
    (root / "etc/default/grub").write_text(default + "GRUB_DISABLE_LINUX_UUID=true\n")


def _extlinux_menu(root: Path, kernels: list[str], below: str, arguments: str) -> None:
    text = "default l0\nprompt 0\ntimeout 10\n"
    for number, version in enumerate(kernels):
        text += f"label l{number}\n\tmenu label Debian GNU/Linux, kernel {version}\n\tlinux {below}/vmlinuz-{version}\n"
        text += f"\tinitrd {below}/initrd.img-{version}\n\tappend {arguments}\n"
    (root / "boot/extlinux").mkdir()
    (root / "boot/extlinux/extlinux.conf").write_text(text)


def install_extlinux(folder: Path) -> None:
    subprocess.run(["extlinux", "--install", str(folder)], check=True, capture_output=True)


def install_grub_bios(disk: Path, uuid: str, prefix: str, work: Path) -> None:
    """In the gap before the first partition, as grub-install does; its menu is found by UUID."""
    core = _core("i386-pc", uuid, prefix, work, "biosdisk")
    if _SECTOR + len(core) > 1 << 20:
        raise ValueError(f"GRUB's core image of {len(core)} bytes does not fit before the partition")
    with disk.open("r+b") as file:
        file.write((_GRUB / "i386-pc/boot.img").read_bytes()[:440])
        file.seek(_SECTOR)
        file.write(core)


def install_grub_uefi(device: str, uuid: str, prefix: str, work: Path) -> None:
    """On an ESP, as grub-install does where the firmware is told of it: the folder that any firmware looks into is not
    there."""
    esp = work / "esp"
    (esp / "debian").mkdir(parents=True)
    (esp / "debian/grubx64.efi").write_bytes(_core("x86_64-efi", uuid, prefix, work, "efi_gop"))
    found = f"search.fs_uuid {uuid} root\nset prefix=($root)'{prefix}'\nconfigfile $prefix/grub.cfg\n"
    (esp / "debian/grub.cfg").write_text(found)
    subprocess.run(["mcopy", "-s", "-i", device, str(esp), "::/EFI"], check=True, capture_output=True)


def _core(platform: str, uuid: str, prefix: str, work: Path, *more: str) -> bytes:
    early = work / "early.cfg"
    early.write_text(f"search.fs_uuid {uuid} root\nset prefix=($root){prefix}\n")
    made = work / "core.img"
    command = ["grub-mkimage", "-O", platform, "-d", str(_GRUB / platform), "-c", str(early), "-p", prefix]
    modules = (*_MODULES, *more) if platform == "x86_64-efi" else ("biosdisk", *_MODULES[:11])
    subprocess.run([*command, "-o", str(made), *modules], check=True)
    core = made.read_bytes()
    return core if platform == "x86_64-efi" else core + bytes(-len(core) % _SECTOR)
