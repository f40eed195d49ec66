"""A raw disk made by hand: MBR, one ext4 partition filled from a folder, and GRUB in the gap before it."""

import struct
from dataclasses import dataclass
from pathlib import Path

from demo.machine.command import run

SECTOR = 512
PARTITION_START = 1024 * 1024
_TABLE_AT = 446
_LINUX = 0x83
_GRUB = Path("/usr/lib/grub/i386-pc")
# Enough to find the menu on its own; the rest is loaded from /boot/grub/i386-pc as on any Debian.
_GRUB_MODULES = ("biosdisk", "part_msdos", "ext2", "normal", "linux", "search", "search_fs_uuid", "serial")
# What GRUB 2.06 cannot read, or what older kernels would refuse.
_FEATURES = "^metadata_csum_seed,^orphan_file"


@dataclass(frozen=True)
class DiskSpec:
    """What identifies a disk: two builds of one spec differ in no identifier."""

    size: int
    signature: int
    uuid: str
    hash_seed: str
    label: str
    bootable: bool


def make_disk(image: Path, spec: DiskSpec, tree: Path) -> None:
    """Write `tree` into the only partition of a new sparse disk.

    The owners in `tree` are those that the caller's fakeroot session shows.
    """
    with image.open("wb") as disk:
        disk.truncate(spec.size)
        disk.seek(0)
        disk.write(master_boot_record(spec))
    blocks = (spec.size - PARTITION_START) // 4096
    # lazy_itable_init=0: nothing is left for the first boot to write
    options = f"offset={PARTITION_START},hash_seed={spec.hash_seed},root_owner=0:0"
    options += ",lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    command = [
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-b",
        "4096",
        "-I",
        "256",
        "-m",
        "1",
        "-O",
        _FEATURES,
        "-J",
        "size=8",
    ]
    command += ["-U", spec.uuid, "-L", spec.label, "-E", options, "-d", str(tree), str(image), str(blocks)]
    run(command)


def master_boot_record(spec: DiskSpec) -> bytes:
    """One primary Linux partition from 1 MiB to the end."""
    start = PARTITION_START // SECTOR
    count = spec.size // SECTOR - start
    # the CHS addresses say "use the LBA fields"
    entry = struct.pack(
        "<B3sB3sII", 0x80 if spec.bootable else 0, b"\xfe\xff\xff", _LINUX, b"\xfe\xff\xff", start, count
    )
    return b"\0" * 440 + struct.pack("<IH", spec.signature, 0) + entry + b"\0" * 48 + b"\x55\xaa"


def embed_grub(image: Path, work: Path) -> None:
    """Put GRUB's boot sector and core image before the first partition, as grub-install would.

    Both carry block lists whose defaults say "the core image starts at sector 1 and is contiguous", so
    nothing needs patching when it is written there.
    """
    core = work / "core.img"
    command = ["grub-mkimage", "-O", "i386-pc", "-d", str(_GRUB), "-p", "(,msdos1)/boot/grub"]
    run([*command, "-o", str(core), *_GRUB_MODULES])
    boot_code = (_GRUB / "boot.img").read_bytes()[:440]
    if SECTOR + core.stat().st_size > PARTITION_START:
        raise ValueError(f"GRUB's core image of {core.stat().st_size} bytes does not fit before the partition")
    with image.open("r+b") as disk:
        disk.write(boot_code)
        disk.seek(SECTOR)
        disk.write(core.read_bytes())
