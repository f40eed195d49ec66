"""`wavelift copy` to and from archives."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from tests.cli.conftest import MIB, Shell, noise, same, write
from tests.stores.conftest import bucket, cloud  # noqa: F401  fixtures
from wavelift.archive.archive import Archive
from wavelift.archive.keys import derived, read_master
from wavelift.archive.opening import parse_place
from wavelift.stores.bucket import Bucket
from wavelift.stores.directory import DirectoryStore

SIZE = 12 * MIB + 512


def generations(shell: Shell) -> list[int]:
    return Archive.open(DirectoryStore(shell.folder / "kept"), None).generations()


@pytest.fixture
def disk(shell: Shell) -> Path:
    return shell.image("disk.raw", SIZE, {0: noise(3 * MIB), 7 * MIB: b"a text " * 99_999, SIZE - 512: noise(512, 2)})


def test_generations_go_in_and_come_back(shell: Shell, disk: Path) -> None:
    first = shell.json("copy", "--state", "s", "--verify", "full", "disk.raw", "folder:kept")
    assert first["verified"] == "full" and first["wrong_ranges"] == []
    before = disk.read_bytes()
    write(disk, {5 * MIB: noise(70_000, 3)})
    second = shell.json("copy", "--since", "s", "--verify", "full", "disk.raw", "folder:kept")
    assert 70_000 < second["sent_bytes"] < 4 * 65536
    assert shell.json("map", "folder:kept")["root"] == second["root"]
    shell.json("copy", "folder:kept", "newest.raw")
    assert same(disk, shell.folder / "newest.raw")
    oldest, newest = generations(shell)
    assert shell.json("copy", f"folder:kept@{oldest}", "oldest.raw")["root"] == first["root"]
    assert (shell.folder / "oldest.raw").read_bytes() == before
    shell.json("verify", "disk.raw", f"folder:kept@{newest}")
    shell.json("verify", "disk.raw", f"folder:kept@{oldest}", status=1)
    assert shell.left() == []


def test_a_folder_holds_copies_that_know_nothing_of_each_other(
    shell: Shell, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However soon one comes after the other: by the clock they would have the same number.
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    shell.json("copy", "disk.raw", "folder:kept")
    before = disk.read_bytes()
    write(disk, {0: noise(MIB, 4)})
    shell.json("copy", "disk.raw", "folder:kept")
    for number, wanted in zip(generations(shell), (before, disk.read_bytes()), strict=True):
        shell.json("copy", f"folder:kept@{number}", f"{number}.raw")
        assert (shell.folder / f"{number}.raw").read_bytes() == wanted
    missing = shell.run("copy", "folder:kept@7", "back.raw")
    assert missing.returncode == 2 and "has no generation 7" in missing.stderr


def test_a_damaged_pack_is_named(shell: Shell, disk: Path) -> None:
    shell.json("copy", "disk.raw", "folder:kept")
    victim = max((shell.folder / "kept/packs").glob("*/*.pack"), key=lambda path: path.stat().st_size)
    raw = bytearray(victim.read_bytes())
    raw[MIB] ^= 1
    victim.write_bytes(raw)
    done = shell.run("copy", "folder:kept", "back.raw")
    assert done.returncode == 2 and victim.name in done.stderr and "bytes" in done.stderr
    assert not (shell.folder / "back.raw").exists()


def test_what_is_refused_leaves_all_as_it_was(shell: Shell, disk: Path) -> None:
    shell.json("copy", "disk.raw", "folder:kept")
    before = sorted((shell.folder / "kept").rglob("*"))
    (shell.folder / "letter").mkdir()
    (shell.folder / "letter/dear").touch()
    assert shell.run("copy", "disk.raw", "folder:letter").returncode == 2
    assert shell.run("copy", "--verify", "sample", "disk.raw", "folder:kept").returncode == 2
    assert shell.run("copy", "kept/archive.json", "folder:kept").returncode == 2
    assert sorted((shell.folder / "kept").rglob("*")) == before


@pytest.fixture
def key(shell: Shell) -> Path:
    path = shell.folder / "archive.key"
    path.write_text("5a" * 32 + "\n")
    return path


@pytest.fixture
def place(
    request: pytest.FixtureRequest,
    shell: Shell,
    bucket: Bucket,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """A place that leaves this machine, empty."""
    if request.param == "offline":
        for name in ("one", "two"):
            (shell.folder / name).mkdir()
        return "offline:one,two"
    names = ("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET", "OSS_REGION", "OSS_ENDPOINT")
    if request.param == "s3":
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL")
    values = (bucket.access_key_id, bucket.access_key_secret, bucket.region, bucket.endpoint)
    for name, value in zip(names, values, strict=True):
        monkeypatch.setenv(name, value)
    return f"{request.param}://{bucket.bucket}/{bucket.prefix}"


@pytest.mark.parametrize("place", ["oss", "s3", "offline"], indirect=True)
def test_generations_go_to_other_places_sealed(shell: Shell, disk: Path, key: Path, place: str) -> None:
    for asked in ([], ["--key-file", "none"]):
        assert shell.json("copy", *asked, "disk.raw", place, status=2)["code"] in ("target_refused", "bad_key")
    sealed = ["--key-file", key]
    shell.json("copy", *sealed, "--state", "s", "--verify", "full", "disk.raw", place)
    before = disk.read_bytes()
    write(disk, {5 * MIB: noise(70_000, 3)})
    second = shell.json("copy", *sealed, "--since", "s", "--verify", "full", "disk.raw", place)
    assert 70_000 < second["sent_bytes"] < 4 * 65536
    assert shell.json("verify", *sealed, "disk.raw", place)["same"]
    shell.json("copy", *sealed, place, "newest.raw")
    assert same(disk, shell.folder / "newest.raw")
    with contextlib.chdir(shell.folder):
        first = parse_place(place).open(derived(read_master(key))).generations()[0]
    shell.json("copy", *sealed, f"{place}@{first}", "oldest.raw")
    assert (shell.folder / "oldest.raw").read_bytes() == before
    assert shell.json("copy", place, "no.raw", status=2)["code"] == "archive_key_missing"
    # From one archive to another, in a folder that is plain unless a key is given.
    shell.json("copy", *sealed, "--plain", place, "folder:kept")
    assert shell.json("map", "folder:kept")["root"] == second["root"]
    assert shell.json("copy", "disk.raw", f"{place}@7", status=2)["code"] == "target_refused"


def test_a_killed_copy_goes_on_at_once(shell: Shell, disk: Path, key: Path) -> None:
    """The lease of a process that has ended holds nobody up."""
    command = ("copy", "--state", "s", "--key-file", key, "--limit", "2M", "disk.raw", "folder:kept")
    child = shell.start(*command)
    while child.poll() is None and not list((shell.folder / "kept").glob("packs/*/*.pack")):
        time.sleep(0.01)
    refused = shell.run("copy", "--key-file", key, "disk.raw", "folder:kept")
    child.kill()
    child.communicate()
    assert refused.returncode == 2 and "under way" in refused.stderr
    done = shell.json("copy", "--state", "s", "--key-file", key, "--verify", "full", "disk.raw", "folder:kept")
    assert done["verified"] == "full" and not list((shell.folder / "kept/locks").glob("copy-*"))[1:]
