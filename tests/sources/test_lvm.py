"""Logical volumes: the plans on what LVM really printed, the rest in a machine whose kernel has device-mapper."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.sources import lvm_guest, small_guest

MODULES = ("dm_mod", "dm_snapshot", "crc32c_generic", "ext4")


@pytest.mark.slow
def test_logical_volumes_under_a_kernel_that_has_them(tmp_path: Path) -> None:
    with (tmp_path / "disk").open("wb") as file:
        file.truncate(64 << 20)
    command = small_guest.command(tmp_path, Path(lvm_guest.__file__), MODULES, "/dev/vda")
    command += ["-drive", f"file={tmp_path / 'disk'},format=raw,if=virtio"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    told = re.findall(r"^done: (\w+)", done.stdout, re.MULTILINE)
    assert told == [scenario.__name__ for scenario in lvm_guest.SCENARIOS], done.stdout + done.stderr
