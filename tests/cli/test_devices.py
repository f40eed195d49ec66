"""Block devices as targets and sources: loop devices, which only root can make."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import MIB, Shell, noise, write
from wavelift.blocks.digest import BLOCK

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices take root")

SIZE = 8 * MIB
Attach = Callable[[Path], Path]


@pytest.fixture
def attach() -> Iterator[Attach]:
    devices: list[str] = []

    def attach_one(file: Path) -> Path:
        made = subprocess.run(["losetup", "--find", "--show", file], capture_output=True, text=True, check=True)
        devices.append(made.stdout.strip())
        return Path(devices[-1])

    yield attach_one
    for device in reversed(devices):
        subprocess.run(["partx", "--delete", device], capture_output=True, check=False)
        subprocess.run(["losetup", "-d", device], check=True)


@pytest.fixture
def disk(shell: Shell) -> Path:
    return shell.image("disk.raw", SIZE, {0: noise(MIB), 5 * MIB: noise(MIB, 1)})


def test_a_device_is_written_when_told_to_and_read_back(shell: Shell, disk: Path, attach: Attach) -> None:
    target = attach(shell.image("back.raw", SIZE + MIB, {0: noise(SIZE + MIB, 3)}))
    error = shell.json("copy", "disk.raw", target, status=2)
    assert error["code"] == "target_refused" and "block device" in error["message"] and "--overwrite" in error["remedy"]
    done = shell.json("copy", "--overwrite", "--state", "kept", "--verify", "full", "disk.raw", target)
    assert done["verified"] == "full"
    # Of a device that is larger, as many bytes are compared.
    assert shell.json("verify", "disk.raw", target)["same"]
    write(disk, {MIB: noise(BLOCK, 4)})
    assert shell.json("verify", target, "disk.raw", status=1)["ranges"] == [[MIB, MIB + BLOCK]]
    # The state knows the device: nothing else has to be said to go on with it.
    again = shell.json("copy", "--since", "kept", "--verify", "sample", "disk.raw", target)
    assert again["sent_bytes"] == BLOCK and again["verified"] == "sample"
    assert shell.json("verify", "disk.raw", target)["same"]


def test_a_device_in_use_is_refused(shell: Shell, disk: Path, attach: Attach) -> None:
    target = attach(shell.image("fs.raw", 32 * MIB, {}))
    subprocess.run(["mkfs.ext4", "-q", target], check=True)
    mounted = shell.folder / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", target, mounted], check=True)
    try:
        error = shell.json("copy", "--overwrite", "disk.raw", target, status=2)
        assert error["code"] == "target_refused" and "in use" in error["message"]
    finally:
        subprocess.run(["umount", mounted], check=True)
    shell.json("copy", "--overwrite", "disk.raw", target)


def node(shell: Shell, number: str) -> Path:
    """A partition's node of our own: nothing makes them in a container."""
    major, _, minor = Path(number).read_text().partition(":")
    path = shell.folder / Path(number).parent.name
    os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(int(major), int(minor)))
    return path


def test_what_a_disk_lies_on_or_under_is_no_target_for_it(shell: Shell, attach: Attach) -> None:
    table = b"label: dos\nstart=2048, size=8192\nstart=12288, size=8192\n"
    back = shell.image("parted.raw", 16 * MIB, {})
    subprocess.run(["sfdisk", "-q", back], input=table, check=True, capture_output=True)
    whole = attach(back)
    subprocess.run(["partx", "--add", whole], check=True)
    first, second = (node(shell, f"/sys/block/{whole.name}/{whole.name}p{number}/dev") for number in (1, 2))
    for source, target in ((whole, first), (first, whole), (first, first), (back, whole), (whole, back), (first, back)):
        error = shell.json("copy", "--overwrite", source, target, status=2)
        assert error["code"] == "target_refused" and "the same" in error["message"], (source, target)
    # One partition to another is a copy like any other; nor is the file of a device for anyone else.
    write(first, {0: noise(MIB)})
    shell.json("copy", "--overwrite", "--verify", "full", first, second)
    shell.image("disk.raw", SIZE, {0: noise(MIB)})
    error = shell.json("copy", "--overwrite", "disk.raw", back, status=2)
    assert error["code"] == "target_refused" and str(whole) in error["message"]
    # As a source it may change by that device, and a device is in use by one that is on it.
    assert shell.json("copy", f"raw:{back}", "read.raw")["consistency"] == "changing while read"
    upper = attach(whole)
    error = shell.json("copy", "--overwrite", "disk.raw", whole, status=2)
    assert error["code"] == "target_refused" and str(upper) in error["message"]
