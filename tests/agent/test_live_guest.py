"""A guest under load, replicated ten times while it runs: every generation, restored, is whole and of its moment."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.sources.live_guest import SIZES, LiveGuest

from .conftest import MIGRATION, Stack, succeeded

CYCLES = 10
# From here on somebody else holds the guest agent's channel, so that it does not answer.
UNFROZEN_FROM = 8


@dataclass
class Kept:
    """A generation as the volumes held it; `before` and `after`: transactions committed around its moment."""

    folder: Path
    frozen: bool
    before: int
    after: int


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[LiveGuest]:
    (tmp_path / "guest").mkdir()
    guest = LiveGuest(tmp_path / "guest")
    yield guest
    guest.stop()


@pytest.mark.slow
def test_ten_generations_of_a_guest_under_load(stack: Stack, guest: LiveGuest, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("looking into a restored disk takes root")
    volumes = {"first": "d-v1", "second": "d-v2"}
    files = {name: stack.volume(volume.removeprefix("d-"), SIZES[name]) for name, volume in volumes.items()}
    stack.disks = {name: Path(guest.source(name, freeze=True)) for name in volumes}
    stack.start()
    kept = []
    for generation in range(1, CYCLES + 1):
        before = guest.committed()
        # The guest goes on: it has written between any two generations.
        guest.wait_for(before + 20)
        before = guest.committed()
        frozen = generation < UNFROZEN_FROM
        with nullcontext() if frozen else held(guest.agent):
            result = stack.replicate(generation, generation - 1 or None, **volumes)
        expected = "file systems frozen" if frozen else "crash-consistent"
        assert {disk["consistency"] for disk in result["disks"]} == {expected}
        assert (result["tracker"], result["notes"]) == ("bitmap" if generation > 1 else "scan", [])
        kept.append(Kept(tmp_path / f"kept-{generation}", frozen, before, guest.committed()))
        kept[-1].folder.mkdir()
        for name, file in files.items():
            copy = ["cp", "--reflink=auto", "--sparse=always", file, kept[-1].folder / name]
            subprocess.run(copy, check=True)
        disks = [{"disk": name, "volume": volume, "size": SIZES[name]} for name, volume in volumes.items()]
        verify = {"kind": "verify", "migration": MIGRATION, "generation": generation, "disks": disks}
        with stack.gateway_client as client:
            client.submit(f"{MIGRATION}/{generation}/verify", verify)
            assert succeeded(client, f"{MIGRATION}/{generation}/verify")["root"] == result["root"]
        stack.commit(generation)
    guest.stop()
    counts = [restored(found) for found in kept]
    assert counts == sorted(counts) and len(set(counts)) == CYCLES


def restored(kept: Kept) -> int:
    """The last transaction in it. The file systems' journals are replayed as after a power cut."""
    first, second = kept.folder / "first", kept.folder / "second"
    needs_recovery = "needs_recovery" in output("dumpe2fs", "-h", first)
    # A frozen ext4 has nothing in its journal.
    assert needs_recovery is not kept.frozen
    numbers = []
    for image in (first, second):
        with mounted(image) as folder:
            database = sqlite3.connect(folder / "database")
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            ((number, lowest, count),) = database.execute("SELECT max(number), min(number), count(*) FROM entry")
            assert count == number - lowest + 1, "a transaction in the middle is missing"
            database.close()
            numbers.append(number)
    output("e2fsck", "-fn", first)
    output("xfs_repair", "-n", "-f", second)
    # Both disks are of one instant: a transaction is committed to the first, then to the second.
    assert numbers[0] - numbers[1] in (0, 1), numbers
    assert kept.before <= numbers[1] and numbers[0] <= kept.after + 1, (kept, numbers)
    return int(numbers[0])


@contextmanager
def mounted(image: Path) -> Iterator[Path]:
    folder = image.with_suffix(".mounted")
    folder.mkdir()
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def held(channel: Path) -> Iterator[None]:
    """QEMU serves one client of a channel at a time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as holder:
        holder.connect(str(channel))
        yield


def output(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout
