"""The demo server boots on the hardware it has, and does not boot on the cloud's."""

import urllib.request
from pathlib import Path

import pytest

from demo.machine import MachineFiles
from tests.machine.qemu import AHCI, VIRTIO, boot

pytestmark = pytest.mark.machine


def test_boots_on_its_own_hardware(demo_machine: MachineFiles, tmp_path: Path) -> None:
    with boot([demo_machine.system, demo_machine.data], AHCI, tmp_path) as machine:
        machine.wait_for(r"DEMO-READY demo-web", 150)
        machine.wait_for(r"demo-web login:", 30)
        assert "DEMO-DATA OK 16 files generation 1" in machine.console()
        with urllib.request.urlopen(f"http://127.0.0.1:{machine.http_port}/status.txt", timeout=30) as answer:
            assert answer.read() == b"DEMO-DATA OK 16 files generation 1\n"


def test_does_not_find_its_root_on_virtio(demo_machine: MachineFiles, tmp_path: Path) -> None:
    with boot([demo_machine.system, demo_machine.data], VIRTIO, tmp_path) as machine:
        machine.wait_for(r"ALERT!  /dev/sda1 does not exist", 180)
        machine.wait_for(r"\(initramfs\)", 30)
        assert "DEMO-READY" not in machine.console()
