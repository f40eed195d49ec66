"""Small file systems on loop devices, as the disks that travel have them. Only root can make them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20
AS_ROOT = os.geteuid() == 0
Mount = Callable[..., Path]

MAKE = {"ext4": ["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal"], "exfat": ["mkfs.exfat"]}
MOUNT = {"ext4": ["mount"], "exfat": ["mount.exfat-fuse"]}


@contextmanager
def attached(image: Path) -> Iterator[Path]:
    """A loop device of the file."""
    made = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=True)
    device = Path(made.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


@contextmanager
def mounted(device: Path, folder: Path, kind: str = "ext4") -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    subprocess.run([*MOUNT[kind], device, folder], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def disk(folder: Path, name: str, size: int = 24 * MIB, kind: str = "ext4") -> Iterator[Path]:
    """A new file system, mounted in folder/name."""
    image = folder / f"{name}.img"
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*MAKE[kind], image], check=True, capture_output=True)
    with attached(image) as device, mounted(device, folder / name, kind) as there:
        yield there
