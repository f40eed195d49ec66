"""Disks made ready to travel: only what is empty, or what was named, is formatted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.archive.filling import make_archive
from tests.cli.conftest import MIB, Shell, noise
from tests.stores.disks import AS_ROOT, attached, mounted
from wavelift.offline.formatting import mke2fs_command
from wavelift.stores.directory import DirectoryStore
from wavelift.stores.offline import OfflineStore

on_loops = pytest.mark.skipif(not AS_ROOT, reason="loop devices take root")
Attach = Callable[[str, dict[int, bytes]], Path]
SIZE = 32 * MIB


@pytest.fixture
def attach(shell: Shell) -> Iterator[Attach]:
    """A loop device of 32 MiB with that content."""
    with ExitStack() as stack:
        yield lambda name, content: stack.enter_context(attached(shell.image(name, SIZE, content)))


def probed(device: Path) -> dict[str, str]:
    said = subprocess.run(["blkid", "-p", "-o", "export", device], capture_output=True, text=True, check=False).stdout
    return dict(line.split("=", 1) for line in said.splitlines())


@on_loops
def test_an_empty_disk_becomes_one_of_a_set(shell: Shell, attach: Attach) -> None:
    device = attach("empty.img", {})
    made = shell.json("offline", "format", device, "--label", "WL-web-01")
    assert made["label"] == "WL-web-01" and probed(device)["LABEL"] == "WL-web-01" and probed(device)["TYPE"] == "ext4"
    with mounted(device, shell.folder / "mnt") as folder:
        (ready,) = shell.json("offline", "list", folder)["ready"]
        assert ready["label"] == "WL-web-01"
        (shell.folder / "place").mkdir()
        make_archive(DirectoryStore(shell.folder / "place"))
        shell.json("offline", "export", "folder:place", folder)
        (store,) = OfflineStore([folder]).disks
        assert (store.label.label, store.label.number, store.label.disk) == ("WL-web-01", 1, made["disk"])
        # Nothing is kept for root, and little for inodes.
        assert store.free > 0.8 * SIZE
        error = shell.json("offline", "format", device, "--label", "WL-web-02", "--erase", "WL-web-01", status=2)
        assert error["code"] == "format_refused" and "in use" in error["message"]
        second = attach("second.img", {})
        shell.json("offline", "format", second, "--label", "WL-web-01")
        with mounted(second, shell.folder / "mnt2") as other:
            error = shell.json("offline", "export", "folder:place", folder, other, status=2)
            assert error["code"] == "disk_refused" and "WL-web-01 already" in error["message"]


@on_loops
@pytest.mark.parametrize("kind", ["ext4", "table", "unknown"])
def test_what_holds_something_is_kept_until_it_is_named(shell: Shell, attach: Attach, kind: str) -> None:
    device = attach("full.img", {MIB // 2: noise(4096)} if kind == "unknown" else {})
    if kind == "ext4":
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "photos", device], check=True)
        name, said = "photos", "ext4"
    elif kind == "table":
        table = b"label: gpt\nlabel-id: 11111111-2222-3333-4444-555555555555\nsize=8192\n"
        subprocess.run(["sfdisk", "-q", "--no-reread", device], input=table, check=True, capture_output=True)
        name, said = str(SIZE), "gpt"
    else:
        name, said = str(SIZE), "no known kind"
    before = device.read_bytes()
    for typed in ([], ["--erase", "holidays"]):
        error = shell.json("offline", "format", device, "--label", "WL-1", *typed, status=2)
        assert error["code"] == "format_refused" and said in error["message"] and f"--erase {name}" in error["remedy"]
    assert device.read_bytes() == before
    shell.json("offline", "format", device, "--label", "WL-1", "--erase", name)
    assert probed(device)["LABEL"] == "WL-1" and "PTTYPE" not in probed(device)


def test_only_a_block_device_is_formatted(shell: Shell) -> None:
    path = shell.image("file.img", SIZE, {0: noise(4096)})
    for device, label, said in ((path, "WL-1", "no block device"), (path, "a label with spaces", "cannot be a label")):
        error = shell.json("offline", "format", device, "--label", label, status=2)
        assert error["code"] == "format_refused" and said in error["message"]
    assert path.read_bytes()[:4096] == noise(4096)
    assert shell.json("offline", "format", "nowhere", "--label", "WL-1", status=2)["code"] == "io"
    without = shell.run("offline", "format", path, "--json")
    assert json.loads(without.stdout)["code"] == "usage"


def test_the_command_says_what_is_made() -> None:
    command = mke2fs_command(Path("/dev/sdx"), "WL-1", Path("content"))
    assert command[-1] == "/dev/sdx" and command[command.index("-L") + 1] == "WL-1"
    assert command.count("-F") == 1 and "lazy_itable_init=1,lazy_journal_init=1" in command
