"""A file system on a disk that is to travel. Whatever is on the disk is lost, so it must be empty, or be named."""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wavelift.blocks.digest import is_zero
from wavelift.blocks.errors import BlockError
from wavelift.stores.disk_label import FILE, LABEL, DiskLabel, encode_label, now

# Where partition tables, file systems, and what encrypts a whole disk begin and end.
_EDGE = 1 << 20


class FormatRefused(BlockError):
    """A device that must not, or cannot, be formatted; nothing was written."""

    default_code = "format_refused"


@dataclass(frozen=True)
class Found:
    """What is on a device of `size` bytes: kinds of content, and what the person may type to have it erased."""

    size: int
    kinds: tuple[str, ...]
    names: tuple[str, ...]


def inspect(device: Path) -> Found:
    """Raises `FormatRefused` for what is no block device or in use, OSError."""
    if not stat.S_ISBLK(device.stat().st_mode):
        raise FormatRefused(f"{device} is no block device.", "Name the disk or partition: see lsblk.")
    try:
        # Refused by the kernel when it, or a part of it, is mounted or claimed by something built on it.
        fd = os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise FormatRefused(
            f"{device} is in use: mounted, or something is built on it.", "Unmount it if it is the right one."
        ) from None
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
        blank = all(is_zero(memoryview(os.pread(fd, _EDGE, at))) for at in (0, max(0, size - _EDGE)))
    finally:
        os.close(fd)
    signatures = json.loads(_run(["wipefs", "--no-act", "--json", str(device)]) or "{}").get("signatures", [])
    kinds = [each["type"] for each in signatures]
    names = [each[field] for each in signatures for field in ("label", "uuid") if each.get(field)]
    names += (
        [serial] if (serial := _run(["lsblk", "--nodeps", "--noheadings", "--output", "SERIAL", str(device)])) else []
    )
    if not kinds and not blank:
        kinds = ["data of no known kind"]
    # Where nothing names it, its size shows that somebody has looked.
    return Found(size, tuple(dict.fromkeys(kinds)), tuple(dict.fromkeys(names)) or (str(size),))


def format_disk(device: Path, label: str, erase: str | None) -> DiskLabel:
    """Make it an empty disk of that label, of no set yet. What is on it is erased only if `erase` is one of its names.

    Raises `FormatRefused`, OSError.
    """
    if LABEL.fullmatch(label) is None:
        raise FormatRefused(
            f"{label!r} cannot be a label.",
            "Use at most 16 letters, digits, '.', '_' and '-', a letter or digit first.",
        )
    found = inspect(device)
    if found.kinds and erase not in found.names:
        typed = "" if erase is None else f", and {erase!r} is not its name"
        raise FormatRefused(
            f"{device} ({found.size} bytes) holds {', '.join(found.kinds)}{typed}.",
            f"If all of that may be lost, repeat with --erase {found.names[0]}",
        )
    made = DiskLabel(secrets.token_hex(8), 0, label, None, (), now())
    with tempfile.TemporaryDirectory(prefix="wavelift-format-") as folder:
        Path(folder, FILE).write_bytes(encode_label(made))
        if found.kinds:
            _run(["wipefs", "--all", "--quiet", str(device)])
        _run(mke2fs_command(device, label, Path(folder)))
    return made


def mke2fs_command(device: Path, label: str, content: Path) -> Sequence[str]:
    """Few inodes, as packs are large, and nothing kept for root; the kernel fills the tables once it is mounted."""
    about = ["-t", "ext4", "-m", "0", "-i", str(256 << 10), "-E", "lazy_itable_init=1,lazy_journal_init=1"]
    # One -F: without a terminal nobody could answer; what is mounted is refused all the same.
    return ["mke2fs", "-q", "-F", *about, "-L", label, "-d", str(content), str(device)]


def _run(command: Sequence[str]) -> str:
    """Raises `FormatRefused` with what it says when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise FormatRefused(f"{command[0]} is not installed.", "Install e2fsprogs and util-linux.") from None
    if done.returncode:
        raise FormatRefused(f"{' '.join(command)} failed: {done.stderr.strip()}", "Look at the device: dmesg, lsblk.")
    return done.stdout.strip()
