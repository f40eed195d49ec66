"""`wavelift restore`: generations of archives to files, devices and exports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oss2
import pytest

from tests.archive.filling import add, block_at, make_archive
from tests.cli.conftest import MIB, Shell, allocated, noise, same, write
from tests.cli.test_exports import Servers
from tests.localcloud.conftest import KEY, REGION, SECRET
from tests.stores.disks import AS_ROOT, attached
from wavelift.archive.archive import Archive
from wavelift.archive.layout import Generation
from wavelift.blocks.digest import BLOCK
from wavelift.localcloud.server import LocalCloud, Options
from wavelift.stores.bucket import Bucket
from wavelift.stores.directory import DirectoryStore
from wavelift.stores.oss import OssStore

SIZE = 24 * MIB + 512


class History:
    """Three generations in a sealed archive, and what each of them is."""

    def __init__(self, folder: Path) -> None:
        shell = Shell(folder)
        disk = shell.image("disk.raw", SIZE, {0: noise(MIB), 5 * MIB: noise(9 * MIB, 1), SIZE - 512: noise(512, 2)})
        self.key = folder / "key"
        self.key.write_text("5a" * 32)
        self.place = f"folder:{folder / 'web'}"
        self.images = []
        for number in range(1, 4):
            where = "--state" if number == 1 else "--since"
            shell.json("copy", where, "kept", "--key-file", "key", "disk.raw", self.place)
            self.images.append(folder / f"then{number}.raw")
            self.images[-1].write_bytes(disk.read_bytes())
            write(disk, {number * 3 * MIB: noise(2 * BLOCK, 10 + number), 12 * MIB + number * BLOCK: bytes(BLOCK)})
        listed = shell.json("restore", "--list", "--key-file", "key", self.place)["generations"]
        self.numbers = [each["generation"] for each in listed]
        assert [each["base"] for each in listed] == [None, *self.numbers[:-1]]

    def at(self, number: int) -> str:
        """Counted from 1."""
        return f"{self.place}@{self.numbers[number - 1]}"

    def restore(self, shell: Shell, *arguments: str | Path, status: int = 0) -> dict[str, Any]:
        return shell.json("restore", "--key-file", self.key, *arguments, status=status)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return History(tmp_path_factory.mktemp("history"))


@pytest.fixture
def servers(shell: Shell) -> Iterator[Servers]:
    found = Servers(shell.folder)
    yield found
    found.stop()


def test_any_generation_to_a_new_file_with_holes_for_zeroes(shell: Shell, history: History) -> None:
    for number, image in enumerate(history.images, 1):
        done = history.restore(shell, history.at(number), f"copy{number}.raw")
        assert same(image, shell.folder / f"copy{number}.raw") and done["verified"] == "full"
        assert done["generation"] == history.numbers[number - 1]
        assert allocated(shell.folder / f"copy{number}.raw") <= 12 * MIB
    said = shell.run("restore", "--key-file", history.key, "--verify", "sample", history.place, "newest.raw")
    assert said.returncode == 0 and "a random part" in said.stdout
    assert same(history.images[2], shell.folder / "newest.raw")
    told = shell.run("restore", "--list", "--key-file", history.key, history.place).stdout
    assert "3 generation(s), sealed" in told and f"on {history.numbers[1]}" in told
    assert shell.left() == [] and not list(shell.folder.glob("*.incomplete"))


def test_what_must_not_be_written_is_refused(shell: Shell, history: History) -> None:
    full = shell.image("full.raw", SIZE, {7 * MIB: b"mine"})
    shell.image("small.raw", MIB, {0: b"mine"})
    before = full.read_bytes()
    for arguments, code in (
        ([history.place, "full.raw"], "target_refused"),
        (["--overwrite", history.place, "small.raw"], "volume_too_small"),
        ([f"{history.place}@9", "copy.raw"], "no_generation"),
        ([history.place], "target_refused"),
        ([history.place, "oss://elsewhere/x"], "target_refused"),
        ([history.place, "/dev/nothing-here"], "target_refused"),
        (["folder:nothing", "copy.raw"], "store_unavailable"),
        (["web", "copy.raw"], "bad_place"),
    ):
        assert history.restore(shell, *arguments, status=2)["code"] == code, arguments
    assert shell.json("restore", history.place, "copy.raw", status=2)["code"] == "archive_key_missing"
    assert full.read_bytes() == before and not (shell.folder / "copy.raw").exists()
    # What lay there goes, zeroes too.
    history.restore(shell, "--overwrite", history.at(1), "full.raw")
    assert same(history.images[0], full)


def plain_archive(shell: Shell) -> tuple[Archive, Generation, dict[int, bytes]]:
    """In folder:lossy, of 16 packs."""
    (shell.folder / "lossy").mkdir()
    archive = make_archive(DirectoryStore(shell.folder / "lossy"))
    blocks = {number: block_at(4 * MIB, number, 3000 + number) for number in range(64)}
    packs = [{n: blocks[n] for n in range(at, at + 4)} for at in range(0, 64, 4)]
    return archive, add(archive, 1, 4 * MIB, blocks, packs), blocks


def test_a_damaged_archive_restores_nothing_that_looks_whole_unless_told_to(shell: Shell) -> None:
    archive, one, blocks = plain_archive(shell)
    rows = archive.packs(one)
    spoilt = shell.folder / "lossy" / rows.key(rows[5])
    data = bytearray(spoilt.read_bytes())
    data[5000] ^= 1
    spoilt.write_bytes(data)
    error = shell.json("restore", "folder:lossy", "copy.raw", status=2)
    assert error["code"] == "blocks_lost" and spoilt.name in error["message"]
    assert not list(shell.folder.glob("copy.raw*"))
    first = rows[5].start // BLOCK
    # One that is gone is found before anything is written, a device too.
    gone = shell.folder / "lossy" / rows.key(rows[9])
    gone.rename(shell.folder / "aside")
    mine = shell.image("mine.raw", 4 * MIB, {0: b"mine"})
    error = shell.json("restore", "--overwrite", "folder:lossy", "mine.raw", status=2)
    assert error["code"] == "blocks_lost" and gone.name in error["message"] and mine.read_bytes()[:4] == b"mine"
    done = shell.json("restore", "--partial", "folder:lossy", "copy.raw", status=1)
    lost = [first, rows[9].start // BLOCK]
    assert done["missing"] == [[number * BLOCK, (number + 4) * BLOCK] for number in sorted(lost)]
    assert done["wrong_ranges"] == [] and len(done["damaged"]) == 2
    kept = (data if n // 4 * 4 not in lost else bytes(BLOCK) for n, data in blocks.items())
    assert (shell.folder / "copy.raw").read_bytes() == b"".join(kept)
    said = shell.run("restore", "--partial", "folder:lossy", "again.raw")
    assert said.returncode == 1 and "MISSING   512 KiB" in said.stdout and rows[9].name in said.stdout


def test_with_a_state_it_goes_on_once_the_packs_are_back(shell: Shell) -> None:
    archive, one, blocks = plain_archive(shell)
    rows = archive.packs(one)
    spoilt = shell.folder / "lossy" / rows.key(rows[5])
    data = spoilt.read_bytes()
    spoilt.write_bytes(data[:4000] + b"!" + data[4001:])
    assert shell.json("restore", "--state", "st", "folder:lossy", "copy.raw", status=2)["code"] == "blocks_lost"
    assert not (shell.folder / "copy.raw").exists() and (shell.folder / "copy.raw.incomplete").exists()
    spoilt.write_bytes(data)
    for each in rows:
        # Nothing of what is there is fetched again.
        if each != rows[5]:
            path = shell.folder / "lossy" / rows.key(each)
            path.write_bytes(bytes(path.stat().st_size))
    done = shell.json("restore", "--state", "st", "folder:lossy", "copy.raw")
    assert done["packs_read"] == 16 and (shell.folder / "copy.raw").read_bytes() == b"".join(blocks.values())
    assert not (shell.folder / "copy.raw.incomplete").exists()
    other = shell.folder / "other"
    other.mkdir()
    (other / "file").touch()
    error = shell.json("restore", "--state", "other", "folder:lossy", "x.raw", status=2)
    assert error["code"] == "state_unusable"


def test_a_generation_whose_base_lies_elsewhere_goes_onto_the_base(shell: Shell) -> None:
    _, one, blocks = plain_archive(shell)
    (shell.folder / "increments").mkdir()
    later = {**blocks, 7: b"7" * BLOCK}
    del later[8]
    elsewhere = make_archive(DirectoryStore(shell.folder / "increments"))
    add(elsewhere, 2, 4 * MIB, later, [{7: b"7" * BLOCK}], base=one)
    error = shell.json("restore", "folder:increments", "copy.raw", status=2)
    assert error["code"] == "base_mismatch" and one.root in error["message"]
    shell.json("restore", "folder:lossy", "copy.raw")
    write(shell.folder / "copy.raw", {0: b"x"})
    before = (shell.folder / "copy.raw").read_bytes()
    assert shell.json("restore", "--overwrite", "folder:increments", "copy.raw", status=2)["code"] == "base_mismatch"
    assert (shell.folder / "copy.raw").read_bytes() == before
    write(shell.folder / "copy.raw", {0: blocks[0][:1]})
    done = shell.json("restore", "--overwrite", "folder:increments", "copy.raw")
    assert done["written_bytes"] == 2 * BLOCK and done["packs_read"] == 1
    content = b"".join(later.get(number, bytes(BLOCK)) for number in range(64))
    assert (shell.folder / "copy.raw").read_bytes() == content


def test_an_export_is_written_and_read_back(shell: Shell, servers: Servers, history: History) -> None:
    export = shell.image("export.raw", SIZE + MIB, {0: noise(MIB, 9), SIZE: noise(MIB - 512, 8)})
    tail = export.read_bytes()[SIZE:]
    place, wanted = history.at(2), history.images[1].read_bytes()
    uri = servers.start("nbdkit", "-f", "-U", shell.folder / "kit.sock", "file", export, socket="kit.sock")
    assert history.restore(shell, place, uri, status=2)["code"] == "target_refused"
    for how in ("full", "sample"):
        done = history.restore(shell, "--overwrite", "--verify", how, place, uri)
        assert done["verified"] == how and export.read_bytes() == wanted + tail
    small = shell.image("tiny.raw", MIB, {})
    other = servers.start("nbdkit", "-f", "-U", shell.folder / "tiny.sock", "file", small, socket="tiny.sock")
    assert history.restore(shell, "--overwrite", place, other, status=2)["code"] == "volume_too_small"
    only = servers.start("nbdkit", "-f", "-r", "-U", shell.folder / "ro.sock", "file", export, socket="ro.sock")
    assert "read-only" in history.restore(shell, "--overwrite", place, only, status=2)["message"]


@pytest.mark.skipif(not AS_ROOT, reason="loop devices need root")
def test_a_device_is_written_on_demand_only(shell: Shell, history: History) -> None:
    with attached(shell.image("device.raw", SIZE + MIB, {2 * MIB: noise(MIB, 9)})) as device:
        assert history.restore(shell, history.place, device, status=2)["code"] == "target_refused"
        history.restore(shell, "--overwrite", history.place, device)
        with device.open("rb") as file:
            assert file.read(SIZE) == history.images[2].read_bytes()


def test_from_a_bucket_by_the_environment_and_on_after_a_kill(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalCloud(tmp_path / "cloud", {KEY: SECRET}, Options(grace=1.0)) as cloud:
        url = f"http://{cloud.oss_endpoint}"
        oss2.Bucket(oss2.AuthV4(KEY, SECRET), url, "packs", region=REGION, is_path_style=True).create_bucket()
        archive = make_archive(OssStore(Bucket(url, "packs", "web", REGION, KEY, SECRET, by_path=True)))
        blocks = {number: block_at(4 * MIB, number, number + 1) for number in range(64)}
        one = add(archive, 1, 4 * MIB, blocks, [{n: blocks[n] for n in (at, at + 1)} for at in range(0, 64, 2)])
        given = {"ENDPOINT": url, "REGION": REGION, "ACCESS_KEY_ID": KEY, "ACCESS_KEY_SECRET": SECRET}
        for name, value in given.items():
            monkeypatch.setenv(f"OSS_{name}", value)
            shell.environment[f"OSS_{name}"] = value
        process = shell.start("restore", "--state", "st", "oss://packs/web", "copy.raw")
        journal = shell.folder / "st" / "work" / "journal"
        end = time.monotonic() + 60
        while not journal.exists() or len(journal.read_bytes().splitlines()) < 5:
            assert time.monotonic() < end and process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        before = len(journal.read_bytes().splitlines()) - 2
        assert not (shell.folder / "copy.raw").exists()
        done = shell.json("restore", "--state", "st", "oss://packs/web@1", "copy.raw")
        assert (shell.folder / "copy.raw").read_bytes() == b"".join(blocks.values())
        # Those of the first attempt count; none of them came again.
        assert done["packs_read"] == 32 and done["wire_bytes"] == one.pack_bytes and before > 0
        monkeypatch.setenv("OSS_ACCESS_KEY_SECRET", "wrong")
        assert shell.json("restore", "oss://packs/web", "new.raw", status=2)["code"] == "denied"
    assert os.environ["OSS_REGION"] == REGION


_TELLING_PEAK = """
import sys
from pathlib import Path
from wavelift.cli.main import main
status = main(sys.argv[1:])
print(Path("/proc/self/status").read_text())
sys.exit(status)
"""


def test_what_is_sealed_is_opened_as_it_is_read(shell: Shell) -> None:
    """Four packs of 16 MiB at a time, each once: it was each four times."""
    disk = shell.image("disk.raw", 112 * MIB, {0: noise(112 * MIB)})
    (shell.folder / "key").write_text("5a" * 32)
    shell.json("copy", "--key-file", "key", disk, "folder:kept")
    arguments = ["restore", "--key-file", "key", "folder:kept", "out.raw"]
    done = subprocess.run(
        [sys.executable, "-c", _TELLING_PEAK, *arguments], cwd=shell.folder, capture_output=True, text=True, check=True
    )
    assert same(disk, shell.folder / "out.raw")
    assert int(done.stdout.split("VmHWM:")[1].split()[0]) < 200 << 10
