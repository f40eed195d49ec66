"""The demo server boots on the hardware it has, and does not boot on the cloud's."""

import urllib.request
from pathlib import Path

import pytest

from demo.machine import MachineFiles
from tests.machine.qemu import AHCI, VIRTIO, boot

pytestmark = [pytest.mark.machine, pytest.mark.slow]


def test_boots_on_its_own_hardware_and_not_on_virtio(demo_machine: MachineFiles, tmp_path: Path) -> None:
    """Both at once: the machine on virtio spends most of its time waiting for a root that does not come."""
    disks = [demo_machine.system, demo_machine.data]
    (tmp_path / "virtio").mkdir()
    (tmp_path / "ahci").mkdir()
    with boot(disks, VIRTIO, tmp_path / "virtio") as lost, boot(disks, AHCI, tmp_path / "ahci") as machine:
        machine.wait_for(r"DEMO-READY demo-web", 150)
        machine.wait_for(r"demo-web login:", 30)
        assert "DEMO-DATA OK 16 files generation 1" in machine.console()
        with urllib.request.urlopen(f"http://127.0.0.1:{machine.http_port}/status.txt", timeout=30) as answer:
            assert answer.read() == b"DEMO-DATA OK 16 files generation 1\n"
        lost.wait_for(r"ALERT!  /dev/sda1 does not exist", 180)
        lost.wait_for(r"\(initramfs\)", 30)
        assert "DEMO-READY" not in lost.console()
