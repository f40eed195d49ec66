"""NBD exports as sources: nbdkit, and QEMU's bitmaps."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import MIB, Shell, noise, same
from wavelift.blocks.digest import BLOCK

SIZE = 32 * MIB


class Servers:
    """Servers on Unix sockets in the shell's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str | Path, socket: str) -> str:
        """The URI of the export, once there."""
        path = self.folder / socket
        self.running.append(subprocess.Popen([*map(str, command)], cwd=self.folder))
        deadline = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < deadline and self.running[-1].poll() is None
            time.sleep(0.02)
        return f"nbd+unix:///?socket={path}"

    def stop(self) -> None:
        while self.running:
            process = self.running.pop()
            process.terminate()
            process.wait(20)


@pytest.fixture
def servers(shell: Shell) -> Iterator[Servers]:
    found = Servers(shell.folder)
    yield found
    found.stop()


def test_an_export_is_copied_mapped_and_verified(shell: Shell, servers: Servers) -> None:
    disk = shell.image("disk.raw", SIZE, {0: noise(MIB), 9 * MIB: noise(3 * MIB, 1)})
    uri = servers.start("nbdkit", "-f", "-U", shell.folder / "kit.sock", "file", disk, socket="kit.sock")
    done = shell.json("copy", "--state", "kept", "--verify", "full", uri, "copy.raw")
    assert same(disk, shell.folder / "copy.raw")
    assert done["consistency"] == "changing while read" and done["zero_bytes"] == SIZE - 4 * MIB
    assert shell.json("map", uri)["root"] == done["root"]
    assert shell.json("verify", uri, "copy.raw")["same"]
    # Nothing tells what changed: all is read, what changed is sent.
    with disk.open("r+b") as file:
        file.write(noise(BLOCK, 2))
    again = shell.json("copy", "--since", "kept", uri, "copy.raw")
    assert again["increment"] and again["tracker"] == "scan" and again["sent_bytes"] == BLOCK
    assert same(disk, shell.folder / "copy.raw")


def test_by_a_bitmap_only_what_changed_is_read(shell: Shell, servers: Servers) -> None:
    shell.image("base.raw", SIZE, {at * MIB: noise(MIB, at) for at in range(0, 32, 2)})

    def image(*arguments: str) -> None:
        subprocess.run(["qemu-img", *arguments], cwd=shell.folder, check=True, capture_output=True)

    image("convert", "-O", "qcow2", "base.raw", "disk.qcow2")
    first = shell.json("copy", "--state", "kept", "disk.qcow2", "copy.raw")
    assert first["sent_bytes"] == 16 * MIB and same(shell.folder / "base.raw", shell.folder / "copy.raw")
    image("bitmap", "--add", "disk.qcow2", "b0")
    change = "write -P 7 4M 64k", "write -z 8M 1M"
    subprocess.run(
        ["qemu-io", *(part for each in change for part in ("-c", each)), "disk.qcow2"],
        cwd=shell.folder,
        check=True,
        capture_output=True,
    )
    second = shell.json("copy", "--since", "kept", "--bitmap", "b0", "--verify", "full", "disk.qcow2", "copy.raw")
    assert second["tracker"] == "bitmap" and second["verified"] == "full"
    assert second["sent_bytes"] == BLOCK and second["written_bytes"] == MIB + BLOCK
    assert second["read_bytes"] == BLOCK
    image("convert", "-O", "raw", "disk.qcow2", "now.raw")
    assert same(shell.folder / "now.raw", shell.folder / "copy.raw")
    wrong = shell.json("copy", "--since", "kept", "--bitmap", "none", "disk.qcow2", "copy.raw", status=2)
    assert wrong["event"] == "error" and "none" in wrong["message"]
    # The state is as it was: the next copy is an increment.
    assert shell.json("copy", "--since", "kept", "disk.qcow2", "copy.raw")["increment"]


def test_a_server_that_is_not_there(shell: Shell) -> None:
    error = shell.json("copy", "nbd://127.0.0.1:1", "copy.raw", status=2)
    assert error["code"] == "source_unreadable" and not (shell.folder / "copy.raw").exists()
