"""Each machine of the matrix: on virtio it does not boot as it was; prepared, it does, with all that it had."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.guest.osmatrix import roots
from tests.guest.osmatrix.booting import STUCK, Told, boot, outcome
from tests.guest.osmatrix.cells import CELLS, Cell
from tests.guest.osmatrix.machines import build, root_device
from tests.machine.qemu import AHCI, VIRTIO

pytestmark = [pytest.mark.matrix, pytest.mark.machine, pytest.mark.timeout(3000)]
BOOT_SECONDS = 600
RESULTS = roots.BUILD / "results.jsonl"


@pytest.mark.parametrize("cell", CELLS, ids=[cell.name for cell in CELLS])
def test_what_was_moved_boots(cell: Cell, tmp_path: Path) -> None:
    disks = build(cell)
    row: dict[str, Any] = cell.row()
    if cell.firmware == "bios" and cell.console:
        # As it is on the source: it boots, so that what it lacks on the target is the move's doing.
        with boot(cell, disks, AHCI, tmp_path / "source") as machine:
            machine.wait_for(rf"{cell.name} login:", BOOT_SECONDS)

    moved = [tmp_path / disk.name for disk in disks]
    for source, target in zip(disks, moved, strict=True):
        subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)
    if cell.console:
        with boot(cell, moved, VIRTIO, tmp_path / "unprepared") as machine:
            row["as it was"] = stuck = outcome(machine, BOOT_SECONDS)
        assert isinstance(stuck, str) and re.search(STUCK, stuck), stuck

    done = subprocess.run(
        [sys.executable, "-m", "wavelift.guest", *map(str, moved)], stdout=subprocess.PIPE, text=True, check=False
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["event"] == "report", report
    row["prepared in s"], row["warnings"] = report["seconds"], report["warnings"]
    assert report["firmware"] == cell.firmware

    with boot(cell, moved, VIRTIO, tmp_path / "prepared") as machine:
        about = outcome(machine, BOOT_SECONDS)
        row["boots in s"] = round(machine.seconds)
    assert isinstance(about, Told), about
    _require_all(cell, about)
    row["kernel"] = about.kernel
    with RESULTS.open("a") as results:
        results.write(json.dumps(row) + "\n")


def _require_all(cell: Cell, about: Told) -> None:
    """Name, file systems, cards with their names and addresses, and no unit that failed."""
    assert about.hostname == cell.name
    device, kind = about.mounts["/"]
    assert kind == cell.fs and (cell.stack == "partition" or root_device(cell) in device), about.mounts
    assert ("/boot" in about.mounts) == cell.boot and ("/boot/efi" in about.mounts) == (cell.firmware == "uefi")
    assert set(about.cards) == {card.name for card in cell.cards}
    for card in cell.cards:
        assert about.cards[card.name].split()[0] == card.address or not card.address, about.cards
    if gateway := next((card.gateway for card in cell.cards if card.gateway), ""):
        assert f"via {gateway}" in about.gateway
    assert about.failed == []
    assert "virtio_net" in about.modules
