"""Disks that travel, on the command line: filled, listed, checked, damaged, lost, unloaded."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import oss2
import pytest

from tests.archive.filling import add, noise
from tests.cli.conftest import MIB, Shell
from tests.cli.test_documentation import examples
from tests.localcloud.conftest import KEY, REGION, SECRET
from tests.stores.conftest import made
from tests.stores.disks import AS_ROOT, MAKE, attached, disk, mounted
from wavelift.archive.archive import Archive
from wavelift.archive.keys import derived
from wavelift.archive.verify import verify
from wavelift.blocks.digest import BLOCK
from wavelift.cli.offline import EXAMPLES, add_arguments
from wavelift.localcloud.server import LocalCloud, Options
from wavelift.stores.base import Store
from wavelift.stores.directory import DirectoryStore
from wavelift.stores.disk_label import read_label
from wavelift.stores.offline import OfflineStore
from wavelift.stores.prefixed import PrefixedStore

MASTER = bytes(range(32))
SIZE = 4 * MIB
FIRST = {number: noise(number) for number in range(1, 33)}
SECOND = {**FIRST, 3: noise(103), 40: noise(140)}


def fill(store: Store, *, sealed: bool) -> Archive:
    """Two generations: 8 packs of 4 blocks, then one with what changed."""
    archive = Archive.create(store, key=derived(MASTER) if sealed else None)
    packs = [{number: FIRST[number] for number in range(at, at + 4)} for at in range(1, 33, 4)]
    base = add(archive, 1, SIZE, FIRST, packs)
    add(archive, 2, SIZE, SECOND, [{3: SECOND[3], 40: SECOND[40]}], base=base)
    return archive


@pytest.fixture(params=["sealed", "plain"])
def sealed(request: pytest.FixtureRequest) -> bool:
    return str(request.param) == "sealed"


@pytest.fixture
def place(shell: Shell, sealed: bool) -> DirectoryStore:
    """In folder:place, at web/sda."""
    made(shell.folder / "place", shell.folder / "a", shell.folder / "b")
    (shell.folder / "master").write_text(MASTER.hex())
    store = DirectoryStore(shell.folder / "place")
    fill(PrefixedStore(store, "web/sda"), sealed=sealed)
    return store


def objects(store: Store) -> dict[str, bytes]:
    return {entry.key: store.get(entry.key) for entry in store.list("")}


def disk_of(shell: Shell, key: str) -> tuple[str, Path]:
    """The label of the disk that has it, and the file."""
    for folder in (shell.folder / "a", shell.folder / "b"):
        if (folder / "wavelift" / key).exists():
            label = read_label(folder)
            assert label is not None
            return label.label, folder / "wavelift" / key
    raise AssertionError(key)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def a_pack(place: DirectoryStore, first: int, generation: int = 1) -> str:
    """The key of the pack that begins with this block."""
    (found,) = [
        entry.key
        for entry in place.list(f"web/sda/packs/{generation}/")
        if int(entry.key.split("/")[-1].split("-")[1], 16) == first
    ]
    return found


def test_there_and_back_again(shell: Shell, place: DirectoryStore, sealed: bool) -> None:
    done = shell.json("offline", "export", "folder:place", "a", "b")
    assert done["faults"] == [] and done["skipped_bytes"] == 0 and len(done["plan"]) == 2
    assert objects(OfflineStore([shell.folder / "a", shell.folder / "b"])) == objects(place)
    again = shell.json("offline", "export", "folder:place", "b", "a")
    assert again["copied_bytes"] == 0 and again["skipped_bytes"] == done["copied_bytes"]
    (listed,) = shell.json("offline", "list", "a", "b")["sets"]
    (archive,) = listed["archives"]
    assert [disk["number"] for disk in listed["disks"]] == [1, 2] and listed["missing"] == []
    assert archive["prefix"] == "web/sda" and archive["sealed"] is sealed
    first, second = archive["generations"]
    assert (first["generation"], first["packs"], second["generation"], second["packs"]) == (1, 8, 2, 1)
    root = Archive.open(PrefixedStore(place, "web/sda"), derived(MASTER) if sealed else None).load(2).root
    assert second["root"] == (None if sealed else root)
    sound = shell.json("offline", "verify", "a", "b")
    assert sound["sound"] and sound["packs"] == 9 and sound["opened"] == ([] if sealed else ["web/sda"])
    opened = shell.json("offline", "verify", "a", "b", "--key-file", "master")
    assert opened["sound"] and opened["opened"] == ["web/sda"] and opened["packs"] == 9
    shell.json("offline", "import", "a", "b", "folder:back")
    assert objects(DirectoryStore(shell.folder / "back")) == objects(place)


def test_a_damaged_pack_is_named_and_it_alone_is_sent_again(shell: Shell, place: DirectoryStore, sealed: bool) -> None:
    shell.json("offline", "export", "folder:place", "a", "b")
    key = a_pack(place, 1)
    label, path = disk_of(shell, key)
    damage(path)
    bad = shell.json("offline", "verify", "a", "b", status=1)
    (finding,) = bad["findings"]
    assert (finding["key"], finding["disks"]) == (key, [label])
    # Block 3 was sent again with the second generation: who can open the packs knows that only 1, 2 and 4 are lost.
    exact = [[BLOCK, 3 * BLOCK], [4 * BLOCK, 5 * BLOCK]]
    by_name = {"archive": "web/sda", "generation": 1, "ranges": [[BLOCK, 5 * BLOCK]]}
    assert bad["lost"] == ([by_name] if sealed else [{"archive": "web/sda", "generation": 2, "ranges": exact}])
    if sealed:
        (opened,) = shell.json("offline", "verify", "a", "b", "--key-file", "master", status=1)["lost"]
        assert opened["ranges"] == exact
    told = shell.run("offline", "verify", "a", "b")
    assert told.returncode == 1 and label in told.stdout and key in told.stdout
    # All else arrives; what it takes to be whole comes with the next import.
    partly = shell.json("offline", "import", "a", "b", "folder:back", status=1)
    assert [(fault["key"], fault["disks"], fault["start"], fault["end"]) for fault in partly["faults"]] == [
        (key, [label], BLOCK, 5 * BLOCK)
    ]
    assert [each["generation"] for each in partly["withheld"]] == [1, 2]
    back = PrefixedStore(DirectoryStore(shell.folder / "back"), "web/sda")
    assert Archive.open(back, derived(MASTER) if sealed else None).generations() == []
    repaired = shell.json("offline", "export", "--check", "folder:place", "a", "b")
    assert repaired["objects"] == 1 and repaired["copied_bytes"] == path.stat().st_size
    assert shell.json("offline", "verify", "a", "b")["sound"]
    rest = shell.json("offline", "import", "a", "b", "folder:back")
    assert rest["faults"] == [] and objects(DirectoryStore(shell.folder / "back")) == objects(place)


def test_an_increment_goes_on_one_disk_while_the_others_are_away(
    shell: Shell, place: DirectoryStore, sealed: bool
) -> None:
    shell.json("offline", "export", "folder:place", "a", "b")
    (shell.folder / "a").rename(shell.folder / "away")
    key = derived(MASTER) if sealed else None
    archive = Archive.open(PrefixedStore(OfflineStore.create([shell.folder / "b"]), "web/sda"), key)
    add(archive, 3, SIZE, {**SECOND, 50: noise(150)}, [{50: noise(150)}], base=archive.load(2))
    (shell.folder / "away").rename(shell.folder / "a")
    both = Archive.open(PrefixedStore(OfflineStore([shell.folder / "a", shell.folder / "b"]), "web/sda"), key)
    assert verify(both, 3).restorable


def test_a_missing_disk_is_named_and_what_it_takes_away_too(shell: Shell, place: DirectoryStore) -> None:
    shell.json("offline", "export", "folder:place", "a")
    label, _ = disk_of(shell, a_pack(place, 1))
    # A second disk, for what comes next: it knows what the first one holds.
    shell.json("offline", "export", "folder:place", "a", "b")
    shutil.move(shell.folder / "a", shell.folder / "elsewhere")
    (listed,) = shell.json("offline", "list", "b")["sets"]
    assert listed["missing"] == [label] and len(listed["archives"][0]["generations"]) == 2
    bad = shell.json("offline", "verify", "b", status=1)
    assert bad["missing"] == [label] and {tuple(each["disks"]) for each in bad["findings"]} == {(label,)}
    assert len(bad["findings"]) == 9 and not bad["sound"]
    assert bad["lost"][0]["ranges"] == [[BLOCK, 33 * BLOCK]]
    partly = shell.json("offline", "import", "b", "folder:back", status=1)
    assert len(partly["faults"]) == 9 and {tuple(fault["disks"]) for fault in partly["faults"]} == {(label,)}
    # Disk by disk does as well: what came before counts.
    shutil.move(shell.folder / "elsewhere", shell.folder / "a")
    assert shell.json("offline", "import", "a", "folder:back")["faults"] == []
    assert objects(DirectoryStore(shell.folder / "back")) == objects(place)


@pytest.mark.parametrize("sealed", ["sealed"], indirect=True)
def test_what_is_something_else_is_refused_before_anything_is_written(shell: Shell, place: DirectoryStore) -> None:
    shell.json("offline", "export", "folder:place", "a")
    before = objects(OfflineStore([shell.folder / "a"]))
    (shell.folder / "other").mkdir()
    fill(PrefixedStore(DirectoryStore(shell.folder / "other"), "web/sda"), sealed=True)
    error = shell.json("offline", "export", "folder:other", "a", status=2)
    assert error["code"] == "transfer_refused" and "another archive" in error["message"]
    (shell.folder / "empty").mkdir()
    assert shell.json("offline", "export", "folder:empty", "a", status=2)["code"] == "transfer_refused"
    assert objects(OfflineStore([shell.folder / "a"])) == before
    assert shell.json("offline", "list", "empty", status=2)["code"] == "disk_refused"
    assert shell.json("offline", "import", "a", "nowhere", status=2)["code"] == "bad_place"
    (shell.folder / "wrong").write_text("ff" * 32)
    assert shell.json("offline", "verify", "a", "--key-file", "wrong", status=2)["code"] == "archive_key_missing"
    wrong = shell.run("offline", "export", "--json")
    assert wrong.returncode == 2 and json.loads(wrong.stdout)["code"] == "usage"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with LocalCloud(tmp_path / "cloud", {KEY: SECRET}, Options()) as cloud:
        url = f"http://{cloud.oss_endpoint}"
        oss2.Bucket(oss2.AuthV4(KEY, SECRET), url, "packs", region=REGION, is_path_style=True).create_bucket()
        for name, value in (
            ("ENDPOINT", url),
            ("ACCESS_KEY_ID", KEY),
            ("ACCESS_KEY_SECRET", SECRET),
            ("REGION", REGION),
        ):
            monkeypatch.setenv(f"OSS_{name}", value)
        for name, value in (
            ("ENDPOINT_URL", url),
            ("ACCESS_KEY_ID", KEY),
            ("SECRET_ACCESS_KEY", SECRET),
            ("REGION", REGION),
        ):
            monkeypatch.setenv(f"AWS_{name}", value)
        yield "packs"


@pytest.mark.parametrize("sealed", ["sealed"], indirect=True)
def test_from_disks_to_oss_and_from_s3_to_disks(shell: Shell, place: DirectoryStore, bucket: str) -> None:
    shell.json("offline", "export", "folder:place", "a")
    shell.json("offline", "import", "a", f"oss://{bucket}/site")
    assert shell.json("offline", "import", "a", f"oss://{bucket}/site")["copied_bytes"] == 0
    shell.json("offline", "export", f"s3://{bucket}/site", "b")
    assert objects(OfflineStore([shell.folder / "b"])) == objects(place)


on_loops = pytest.mark.skipif(not AS_ROOT, reason="loop devices take root")


@on_loops
@pytest.mark.parametrize("sealed", ["sealed"], indirect=True)
def test_disks_too_small_are_told_beforehand_and_a_filled_one_is_continued(shell: Shell, place: DirectoryStore) -> None:
    archive = Archive.open(PrefixedStore(place, "web/sda"), derived(MASTER))
    size = 16 * MIB
    blocks = {number: noise(1000 + number) for number in range(160)}
    add(
        archive,
        3,
        size,
        blocks,
        [{number: blocks[number] for number in range(at, at + 16)} for at in range(0, 160, 16)],
    )
    with disk(shell.folder, "one", 8 * MIB) as one, disk(shell.folder, "two", 16 * MIB, "exfat") as two:
        error = shell.json("offline", "export", "folder:place", one, status=2)
        assert (
            error["code"] == "store_full" and "lack room for" in error["message"] and "nothing was" in error["message"]
        )
        assert objects(OfflineStore([one])) == {}
        done = shell.json("offline", "export", "folder:place", one, two)
        assert all(share["takes"] for share in done["plan"])
        store = OfflineStore([one, two])
        assert objects(store) == objects(place) and all(each.has_packs() for each in store.disks)
        assert shell.json("offline", "verify", two, one, "--key-file", "master")["sound"]
        (shell.folder / "three").mkdir()
        on_two = {entry.key for entry in store.disks[1].store.list("")}
        lost = sum(entry.size for entry in store.disks[0].store.list("") if entry.key not in on_two)
        # The first one fell into the water.
        done = shell.json("offline", "export", "folder:place", two, "three")
        assert done["copied_bytes"] == lost > 0
        assert objects(OfflineStore([two, shell.folder / "three"])) == objects(place)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("sealed", ["sealed"], indirect=True)
def test_an_export_that_was_ended_goes_on(shell: Shell, place: DirectoryStore, number: signal.Signals) -> None:
    archive = Archive.open(PrefixedStore(place, "web/sda"), derived(MASTER))
    blocks = {number: noise(1000 + number) for number in range(256)}
    size = 16 * MIB
    add(
        archive,
        3,
        size,
        blocks,
        [{number: blocks[number], number + 1: blocks[number + 1]} for number in range(0, 256, 2)],
    )
    process = shell.start("offline", "export", "folder:place", "a", "b")
    there = shell.folder / "a/wavelift/web/sda/packs/3"
    deadline = time.monotonic() + 60
    while len(list(there.glob("*.pack"))) < 6:
        assert process.poll() is None and time.monotonic() < deadline
    process.send_signal(number)
    _, said = process.communicate()
    if number == signal.SIGINT:
        assert process.returncode == 130 and "Repeat the command" in said
    cut = OfflineStore([shell.folder / "a", shell.folder / "b"])
    before = len(list(cut.list("web/sda/packs/3/")))
    done = shell.json("offline", "export", "folder:place", "a", "b")
    assert done["skipped_bytes"] > 0 and objects(OfflineStore([shell.folder / "a"])) == objects(place) and before >= 5


@on_loops
@pytest.mark.parametrize("sealed", ["sealed"], indirect=True)
def test_a_disk_that_cannot_be_read_any_more_takes_only_its_own_with_it(shell: Shell, place: DirectoryStore) -> None:
    archive = Archive.open(PrefixedStore(place, "web/sda"), derived(MASTER))
    blocks = {number: noise(1000 + number) for number in range(128)}
    size = 16 * MIB
    add(archive, 3, size, blocks, [{each: blocks[each] for each in range(at, at + 8)} for at in range(0, 128, 8)])
    image = shell.folder / "one.img"
    image.write_bytes(b"")
    with image.open("r+b") as file:
        file.truncate(24 * MIB)
    subprocess.run([*MAKE["ext4"], image], check=True)
    with attached(image) as device:
        with mounted(device, shell.folder / "one") as folder:
            done = shell.json("offline", "export", "folder:place", folder)
            label = OfflineStore([folder]).disks[0].label.label
        with image.open("r+b") as file:
            # The second half of its sectors is gone.
            file.truncate(12 * MIB)
        with mounted(device, shell.folder / "one") as folder:
            for key in ([], ["--key-file", "master"]):
                bad = shell.json("offline", "verify", folder, *key, status=1)
                gone = {finding["key"]: finding["why"] for finding in bad["findings"]}
                assert gone and all("Input/output error" in why for why in gone.values())
                assert all(finding["disks"] == [label] for finding in bad["findings"]) and bad["lost"]
            partly = shell.json("offline", "import", folder, "folder:back", status=1)
            faults = {fault["key"] for fault in partly["faults"]}
            assert {key for key in gone if "/packs/" in key} <= faults <= set(gone) and partly["withheld"]
            assert 0 < partly["copied_bytes"] < done["copied_bytes"]


def test_the_examples_are_well_formed(shell: Shell) -> None:
    document = (Path(__file__).parents[2] / "docs" / "offline.md").read_text()
    found = examples(document, "    ") + examples(EXAMPLES, "  ")
    assert {command[2] for command in found} == {"format", "export", "list", "verify", "import"} and len(found) >= 10
    for command in found:
        parser = argparse.ArgumentParser(exit_on_error=False)
        add_arguments(parser)
        parser.parse_args(command[2:])
