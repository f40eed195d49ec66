"""The real thing: the demo server, prepared through the appliance, boots on what the cloud has."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from demo.machine import MachineFiles
from tests.machine.qemu import VIRTIO, boot

pytestmark = pytest.mark.machine


def digest(path: Path) -> str:
    with path.open("rb") as image:
        return hashlib.file_digest(image, "sha256").hexdigest()


def run(*disks: Path | str) -> tuple[int, list[dict[str, Any]]]:
    command = [sys.executable, "-m", "wavelift.guest", *map(str, disks)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow  # the everyday end-to-end run prepares and boots a machine as well
def test_prepared_it_boots_on_virtio(demo_machine: MachineFiles, copied_machine: MachineFiles, tmp_path: Path) -> None:
    source = digest(demo_machine.system), digest(demo_machine.data)
    links = [tmp_path / "virtio-system", tmp_path / "virtio-data"]
    links[0].symlink_to(copied_machine.system)
    links[1].symlink_to(copied_machine.data)

    status, events = run(*links)
    report = events[-1]
    assert (status, report["event"]) == (0, "report"), report
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    changed = [change["path"] for change in report["changes"]]
    assert changed[0] == "/var/lib/wavelift/prepare-1.json" and "/etc/fstab" in changed
    assert any(path.startswith("/boot/initrd.img-") for path in changed)
    assert all(change["before"] != change["after"] for change in report["changes"])
    assert "Debian" in report["os"] and len(report["kernels"]) == 1 and report["warnings"] == []

    with boot([copied_machine.system, copied_machine.data], VIRTIO, tmp_path / "boot") as machine:
        machine.wait_for(r"DEMO-READY demo-web", 150)
        machine.wait_for(r"demo-web login:", 30)
        assert "DEMO-DATA OK 16 files generation 1" in machine.console()

    prepared = digest(copied_machine.system), digest(copied_machine.data)
    status, events = run(*links)
    assert (status, events[-1]["changes"]) == (0, [])
    assert (digest(copied_machine.system), digest(copied_machine.data)) == prepared, "a second run changed bytes"
    assert (digest(demo_machine.system), digest(demo_machine.data)) == source, "the source was touched"


@pytest.mark.slow  # three appliances
def test_what_was_prepared_is_taken_back(copied_machine: MachineFiles) -> None:
    disks = (copied_machine.system, copied_machine.data)
    _, first = run(*disks)
    status, events = run("--undo", *disks)
    assert (status, events[-1]["event"]) == (0, "undone"), events[-1]
    back = {change["path"]: (change["after"], change["before"]) for change in events[-1]["changes"]}
    assert back == {change["path"]: (change["before"], change["after"]) for change in first[-1]["changes"]}
    status, events = run("--undo", *disks)
    assert (status, events[-1]["code"]) == (1, "nothing_to_undo")
    _, second = run(*disks)
    assert second[-1]["changes"] == first[-1]["changes"]


def test_a_disk_without_a_system(copied_machine: MachineFiles) -> None:
    before = digest(copied_machine.data)
    status, events = run(copied_machine.data)
    assert status == 1
    assert events[-1]["event"] == "error" and events[-1]["code"] == "no_operating_system"
    assert "ext4" in events[-1]["message"] and events[-1]["remedy"]
    assert digest(copied_machine.data) == before


def test_a_disk_that_is_not_there(tmp_path: Path) -> None:
    status, events = run(tmp_path / "none.img")
    assert (status, events[-1]["code"]) == (1, "no_such_disk")


def test_termination_takes_the_appliance_along(copied_machine: MachineFiles, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "wavelift.guest", str(copied_machine.system)]
    environment = {**os.environ, "LIBGUESTFS_TMPDIR": str(scratch)}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        deadline = time.monotonic() + 120
        while not (machines := appliances(child.pid, copied_machine.system)):
            assert child.poll() is None and time.monotonic() < deadline, "no appliance came up"
            time.sleep(0.1)
        time.sleep(2)
        child.send_signal(signal.SIGTERM)
        output, _ = child.communicate(timeout=30)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 143
    assert json.loads(output.splitlines()[-1])["code"] == "cancelled"
    _, alive = psutil.wait_procs(machines, timeout=5)
    assert alive == []
    assert list(scratch.iterdir()) == [], "temporary files are left"


def appliances(parent: int, disk: Path) -> list[psutil.Process]:
    """The machines below `parent` that have `disk`; not the QEMUs that libguestfs only asks for their features."""
    found = []
    for child in psutil.Process(parent).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "qemu" in child.name() and any(str(disk) in word for word in child.cmdline()):
                found.append(child)
    return found
