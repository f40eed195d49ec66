"""A real agent and gateway: a block device and a qcow2 image, replicated, changed, replicated again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.conftest import MIB, Stack, noise

from .conftest import LoopDevice

SIZE = 8 * MIB
BLOCK = 64 << 10


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    yield stack
    stack.stop()


def test_a_device_and_a_qcow2_image_arrive_and_so_does_what_changes(stack: Stack, loop_device: LoopDevice) -> None:
    under = stack.disk("sda", SIZE, {0: noise(3 * MIB), SIZE - 512: noise(512)})
    stack.disks["sda"] = device = loop_device(under)
    stack.disks["sdb"] = image = stack.folder / "sdb.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, str(SIZE)], check=True)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 5 1M 2M", image], check=True, stdout=subprocess.DEVNULL)
    inside = bytearray(SIZE)
    inside[MIB : 3 * MIB] = b"\5" * (2 * MIB)
    first, second = stack.volume("v1", SIZE, b"old!" * 1024), stack.volume("v2", SIZE, b"old!" * 1024)
    stack.start()
    with stack.agent_client as client:
        listed = {disk["id"]: (disk["kind"], disk["size"]) for disk in client.get("/v1/disks")}
    assert listed == {"sda": ("device", SIZE), "sdb": ("qcow2", SIZE)}
    stack.replicate(1, sda="d-v1", sdb="d-v2")
    assert first.read_bytes() == under.read_bytes() and second.read_bytes() == inside
    stack.commit(1)
    with device.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(noise(BLOCK, 1))
        os.fsync(file.fileno())
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 6 2M 64k", image], check=True, stdout=subprocess.DEVNULL)
    inside[2 * MIB : 2 * MIB + BLOCK] = b"\6" * BLOCK
    result = stack.replicate(2, 1, sda="d-v1", sdb="d-v2")
    assert [disk["changed_bytes"] for disk in result["disks"]] == [BLOCK, BLOCK]
    assert first.read_bytes() == under.read_bytes() and second.read_bytes() == inside
