"""The demo server, and a plain tree of a guest around the modules of this machine's own kernel package."""

import gzip
import shutil
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from demo.machine import MachineFiles, build
from wavelift.guest.files import DirectoryFiles, FileEdit, Link
from wavelift.guest.initramfs import cpio
from wavelift.guest.initramfs.drivers import parse_tables
from wavelift.guest.initramfs.image import needed_modules

REPOSITORY = Path(__file__).parents[2]
MODULES = Path("/lib/modules")
FSTAB = """\
# <file system> <mount point>   <type>  <options>       <dump>  <pass>
/dev/sda1       /               ext4    errors=remount-ro 0       1
/dev/sda5\tnone\tswap\tsw\t0\t0
  /dev/sdb1       /data           ext4    defaults        0       2
/dev/sr0        /media/cdrom0   udf,iso9660 user,noauto     0       0
UUID=0000-0001  /old            vfat    defaults        0       0
tmpfs           /tmp            tmpfs   size=1g         0       0
"""
MENU = """\
set default="0"
menuentry 'Debian' {
	set root='hd0,msdos1'
	linux	/boot/vmlinuz-6 root=/dev/sda1 ro resume=/dev/sda5 quiet
	initrd	/boot/initrd.img-6
}
# linux /boot/vmlinuz-5 root=/dev/sda1
"""
DEFAULTS = """\
GRUB_TIMEOUT=1
GRUB_CMDLINE_LINUX_DEFAULT="quiet resume=/dev/sda5"
GRUB_CMDLINE_LINUX=""
GRUB_DISABLE_LINUX_UUID=true   # by the installer
"""


@pytest.fixture(scope="session")
def demo_machine() -> MachineFiles:
    return build(REPOSITORY / ".wavelift/build/machine")


@pytest.fixture
def copied_machine(demo_machine: MachineFiles, tmp_path: Path) -> MachineFiles:
    copy = MachineFiles(tmp_path / "system.img", tmp_path / "data.img")
    for source, target in ((demo_machine.system, copy.system), (demo_machine.data, copy.data)):
        subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)
    return copy


@pytest.fixture
def guest_tree(tmp_path: Path) -> Path:
    """A guest with the drivers in its kernel package and an initramfs that lacks them."""
    version = sorted(path.name for path in MODULES.iterdir() if (path / "modules.dep").exists())[-1]
    root = tmp_path / "guest"
    target = root / "lib/modules" / version
    target.mkdir(parents=True)
    for name in ("modules.dep", "modules.builtin"):
        shutil.copy(MODULES / version / name, target / name)
    tables = parse_tables(version, *((target / name).read_text() for name in ("modules.dep", "modules.builtin")))
    for path in needed_modules(tables):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(MODULES / version / path, target / path)
    for name, content in (
        ("etc/fstab", FSTAB),
        ("etc/default/grub", DEFAULTS),
        ("etc/os-release", 'NAME="x"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'),
        ("etc/initramfs-tools/modules", "# drivers\next4\n"),
        ("etc/initramfs-tools/conf.d/resume", "RESUME=/dev/sda5\n"),
        ("boot/grub/grub.cfg", MENU),
        ("boot/grub/i386-pc/normal.mod", ""),
        (f"boot/vmlinuz-{version}", ""),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / f"boot/initrd.img-{version}").write_bytes(plain_initramfs())
    return root


def applied(tree: Path, edits: Iterable[FileEdit]) -> None:
    """What the appliance does to a guest, done to a tree."""
    for edit in edits:
        target = tree / edit.path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(edit.after, bytes) and isinstance(edit.before, bytes):
            real = DirectoryFiles(tree).real(edit.path)
            assert real is not None
            real.write_bytes(edit.after)
            continue
        target.unlink(missing_ok=True)
        if isinstance(edit.after, Link):
            target.symlink_to(edit.after.target)
        elif edit.after is not None:
            target.write_bytes(edit.after)


def plain_initramfs() -> bytes:
    """As initramfs-tools makes it on a machine with microcode: an early archive, then the gzipped main one."""
    early = cpio.write_archive([cpio.folder("kernel"), cpio.file("kernel/x86.bin", b"microcode")])
    main = [
        cpio.folder("."),
        cpio.Entry("lib", stat.S_IFLNK | 0o777, b"usr/lib"),
        cpio.folder("usr"),
        cpio.folder("usr/lib"),
        cpio.folder("conf"),
        cpio.file("conf/modules", b"ext4"),
        cpio.file("init", b"#!/bin/sh\n"),
        cpio.file("scripts/functions", b""),
    ]
    return early + b"\0" * (-len(early) % 512) + gzip.compress(cpio.write_archive(main), mtime=0)
