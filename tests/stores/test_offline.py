"""Disks that travel: spread, filled, missing, strange, and on file systems without links."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.stores.conftest import made
from tests.stores.disks import AS_ROOT, MIB, disk
from wavelift.stores.base import AlreadyThere, Full, NotThere, Store, Unavailable
from wavelift.stores.directory import DirectoryStore
from wavelift.stores.disk_label import FILE, DiskMissing, DiskRefused, read_label
from wavelift.stores.offline import OfflineStore

on_loops = pytest.mark.skipif(not AS_ROOT, reason="loop devices take root")
Disks = Callable[..., list[Path]]


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Disks]:
    """`disks("a", "b", size=..., kind=...)`: mounted ones, empty."""
    with ExitStack() as stack:

        def make(*names: str, size: int = 24 * MIB, kind: str = "ext4") -> list[Path]:
            return [stack.enter_context(disk(tmp_path, name, size, kind)) for name in names]

        yield make


def where(store: OfflineStore, key: str) -> list[str]:
    return [each.folder.name for each in store.holders(key)]


def test_packs_lie_on_one_disk_and_all_else_on_each(tmp_path: Path) -> None:
    store = OfflineStore.create(made(tmp_path / "a", tmp_path / "b"))
    store.put("web/packs/1/p", b"pack")
    store.put("web/generations/1", b"record", new=True)
    assert where(store, "web/packs/1/p") == ["a"] and where(store, "web/generations/1") == ["a", "b"]
    labels = [each.label for each in store.disks]
    assert [label.number for label in labels] == [1, 2] and labels[0].members == labels[1].members
    assert labels[0].label == f"WL-{store.set_id[:6]}-01" and not store.absent
    # Opened in another order it is the same set, and reading writes nothing.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = OfflineStore([tmp_path / "b", tmp_path / "a"])
    assert again.get("web/packs/1/p") == b"pack" and [each.label for each in again.disks] == labels
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_missing_disk_is_named_and_an_object_that_never_was_is_not(tmp_path: Path) -> None:
    folders = made(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    store = OfflineStore.create(folders)
    store.put("packs/1/p", b"pack")
    store.put("generations/1", b"record")
    label = store.disks[0].label.label
    part = OfflineStore(folders[1:])
    assert part.absent == (label,) and part.get("generations/1") == b"record"
    for ask in (part.get, part.size):
        with pytest.raises(DiskMissing) as caught:
            ask("packs/1/p")
        assert caught.value.labels == (label,) and label in str(caught.value)
    # Where nobody knows of it, it may be on any of those that are not here.
    with pytest.raises(DiskMissing):
        part.get("packs/1/other")
    with pytest.raises(NotThere):
        part.get("generations/2")
    with pytest.raises(NotThere):
        store.get("packs/1/other")
    with pytest.raises(DiskMissing):
        part.delete(["generations/1"])
    assert part.get("generations/1") == b"record"
    # One that is lost from a disk that is here is not on another.
    (folders[0] / "wavelift/packs/1/p").unlink()
    with pytest.raises(NotThere, match=label):
        OfflineStore(folders[:2]).get("packs/1/p")


def test_what_is_no_disk_of_the_set_is_refused(tmp_path: Path) -> None:
    one, two, other, full, plain = made(*(tmp_path / name for name in ("one", "two", "other", "full", "plain")))
    OfflineStore.create([one, two])
    OfflineStore.create([other])
    (full / "holiday.jpg").write_bytes(b"x")
    (plain / "lost+found").mkdir()
    (plain / ".Trash-1000").mkdir()
    for make in (OfflineStore, OfflineStore.create):
        for folders, said in (([one, other], "of the set"), ([one, one], "the same disk"), ([], "No disk")):
            with pytest.raises(DiskRefused, match=said):
                make(folders)
    shutil.copytree(one, tmp_path / "cloned")
    with pytest.raises(DiskRefused, match="one is a copy"):
        OfflineStore([one, tmp_path / "cloned"])
    with pytest.raises(DiskRefused, match=r"not empty.*holiday.jpg"):
        OfflineStore.create([one, full])
    with pytest.raises(DiskRefused, match="no disk of a set"):
        OfflineStore([one, plain])
    assert [path.name for path in full.iterdir()] == ["holiday.jpg"]
    assert [each.label.number for each in OfflineStore.create([one, plain]).disks] == [1, 3]
    with pytest.raises(FileNotFoundError):
        OfflineStore.create([tmp_path / "nowhere"])


def test_a_damaged_label_is_said(tmp_path: Path) -> None:
    (folder,) = made(tmp_path / "a")
    OfflineStore.create([folder])
    raw = (folder / FILE).read_bytes()
    for damaged in (raw[:-20], raw.replace(b'"number": 1', b'"number": 2'), b"", b"[]", b"\xff"):
        (folder / FILE).write_bytes(damaged)
        with pytest.raises(DiskRefused, match="is damaged"):
            OfflineStore([folder])
    (folder / FILE).write_bytes(raw)
    assert json.loads(raw)["label"] == OfflineStore([folder]).disks[0].label.label


def test_a_disk_that_comes_late_or_was_away_gets_what_the_others_have(tmp_path: Path) -> None:
    a, b, c = made(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    OfflineStore.create([a, b]).put("generations/1.packs", b"first attempt")
    alone = OfflineStore.create([b])
    alone.put("generations/1.packs", b"second")
    alone.put("packs/1/p", b"pack")
    alone.put("generations/1", b"record")
    os.utime(a / "wavelift/generations/1.packs", (1, 1))
    # Reading: the newest counts, though the first disk has it as it was.
    both = OfflineStore([a, b])
    assert both.get("generations/1.packs") == b"second"
    assert [(entry.key, entry.size) for entry in both.list("generations/")] == [
        ("generations/1", 6),
        ("generations/1.packs", 6),
    ]
    OfflineStore.create([a, b, c])
    for each in (a, c):
        store = OfflineStore([each])
        assert store.get("generations/1.packs") == b"second" and store.get("generations/1") == b"record"
        with pytest.raises(DiskMissing) as caught:
            store.get("packs/1/p")
        assert caught.value.labels == (read_label(b).label,)  # type: ignore[union-attr]


def test_what_was_taken_out_is_not_written_beside(tmp_path: Path) -> None:
    a, b = made(tmp_path / "a", tmp_path / "b")
    store = OfflineStore.create([a, b])
    a.rename(tmp_path / "taken")
    a.mkdir()
    with pytest.raises(Unavailable):
        store.put("packs/1/p", b"pack")
    with pytest.raises(Unavailable):
        store.put("generations/1", b"record")
    with pytest.raises(Unavailable):
        store.get("packs/1/q")
    assert not list(a.iterdir())


def test_several_that_make_the_same_set_make_one(tmp_path: Path) -> None:
    folders = made(tmp_path / "a", tmp_path / "b")
    sets, gate = [], threading.Barrier(4)

    def create() -> None:
        gate.wait()
        sets.append(OfflineStore.create(folders).set_id)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(sets) == 4 and len(set(sets)) == 1


def test_lines_that_were_cut_short_take_no_others_with_them(tmp_path: Path) -> None:
    (folder,) = made(tmp_path / "a")
    store = OfflineStore.create([folder])
    store.put("packs/1/p", b"one")
    with (folder / "wavelift-inventory").open("ab") as file:
        file.write(b"\n12345678 + abc")
    store.put("packs/1/q", b"three")
    store.delete(["packs/1/p"])
    assert {key: held.size for key, held in store.expected().items()} == {"packs/1/q": 5}


@on_loops
def test_a_filled_disk_is_continued_on_the_next(disks: Disks) -> None:
    folders = disks("a", "b")
    store = OfflineStore.create(folders)
    packs = {f"packs/1/{number:02}": os.urandom(3 * MIB) for number in range(9)}
    for key, data in packs.items():
        store.put(key, data)
    store.put("generations/1", b"record")
    on = {key: where(store, key) for key in packs}
    assert set(map(tuple, on.values())) == {("a",), ("b",)} and on == dict(sorted(on.items(), key=lambda each: each[1]))
    # The reserve is left on the one that is full.
    assert store.disks[0].free >= store.disks[0].size // 64 and store.disks[0].room < 3 * MIB
    assert all(store.get(key) == data for key, data in packs.items())
    again = OfflineStore(folders)
    again.put("packs/1/small", b"goes where the last one went")
    assert where(again, "packs/1/small") == ["b"]
    with pytest.raises(Full) as caught:
        for number in range(9):
            again.put(f"packs/2/{number}", os.urandom(3 * MIB))
    assert all(each.label.label in caught.value.message for each in again.disks) and "more are needed" in str(caught)
    assert not [path for folder in folders for path in folder.rglob(".new-*") if path.name != ".new-lock"]
    # Room that comes back is used, on whatever disk.
    again.delete(["packs/1/00"])
    again.put("packs/2/x", bytes(2 * MIB))
    assert where(again, "packs/2/x") == ["a"]


@on_loops
def test_a_disk_that_others_fill_in_the_middle_of_a_pack_is_left_for_the_next(disks: Disks) -> None:
    folders = disks("a", "b")
    OfflineStore.create(folders)
    packs = {f"packs/1/{number}": os.urandom(3 * MIB) for number in range(12)}
    gate = threading.Barrier(4)

    def write(which: int) -> None:
        # None of the four knows what the others are writing.
        store = OfflineStore(folders)
        for key, data in list(packs.items())[which::4]:
            gate.wait()
            store.put(key, data)

    threads = [threading.Thread(target=write, args=(which,)) for which in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    store = OfflineStore(folders)
    assert all(store.get(key) == data for key, data in packs.items()) and len(list(store.list(""))) == 12
    assert {name for key in packs for name in where(store, key)} == {"a", "b"}
    assert {key: held.size for key, held in store.expected().items()} == dict.fromkeys(packs, 3 * MIB)
    assert not [path for folder in folders for path in folder.rglob(".new-*") if path.name != ".new-lock"]


@on_loops
def test_a_disk_that_takes_no_more_files_is_full_whatever_its_account_says(disks: Disks) -> None:
    a, b = disks("a", "b")
    store = OfflineStore.create([a, b])
    store.put("packs/1/first", b"x")
    for folder in (a, b):
        with pytest.raises(OSError, match="No space"):
            for number in range(100_000):
                (folder / f"filler-{number}").touch()
        if folder is a:
            store.put("packs/1/next", b"y")
            assert where(store, "packs/1/next") == ["b"]
    with pytest.raises(Full, match="though by their own account there is room"):
        store.put("packs/1/last", b"z")


@on_loops
def test_a_file_system_without_links_keeps_every_promise(disks: Disks) -> None:
    (folder,) = disks("a", kind="exfat")
    with pytest.raises(OSError, match="not permitted"):
        os.link(written(folder / "one"), folder / "two")
    makers = 6
    contents = [bytes([each]) * 200_000 for each in range(makers)]
    for store in (DirectoryStore(*made(folder / "directory")), OfflineStore.create(made(folder / "set"))):
        assert race(store, contents) == 1
        store.put("lock/one", b"other")
        assert store.get("lock/one") == b"other" and [entry.key for entry in store.list("")] == ["lock/one"]


@pytest.mark.slow
@on_loops
def test_vfat_keeps_every_promise(tmp_path: Path) -> None:
    """By the appliance's kernel: this machine's may have no vfat."""
    image, folder = tmp_path / "vfat.img", tmp_path / "vfat"
    with image.open("wb") as file:
        file.truncate(40 * MIB)
    subprocess.run(["mkfs.vfat", "-n", "WL-VFAT", image], check=True, capture_output=True)
    folder.mkdir()
    settings = {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}
    command = ["guestmount", "--add", image, "--mount", "/dev/sda", "--pid-file", tmp_path / "pid", folder]
    subprocess.run(command, check=True, env={**os.environ, **settings})
    try:
        with pytest.raises(OSError, match="not permitted"):
            os.link(written(folder / "one"), folder / "two")
        (folder / "one").unlink()
        store = OfflineStore.create([folder])
        assert race(store, [bytes([each]) * 200_000 for each in range(4)]) == 1
        packs = {f"web/packs/1/0000064c00001-{number:x}-10-{'ab' * 32}.pack": os.urandom(MIB) for number in range(8)}
        for key, data in packs.items():
            store.put(key, data)
        store.put("web/generations/1", b"record", new=True)
        with pytest.raises(Full):
            for number in range(60):
                store.put(f"web/packs/2/{number}", bytes(MIB))
        again = OfflineStore([folder])
        assert {key: again.get(key) for key in packs} == packs and again.get("web/generations/1") == b"record"
    finally:
        subprocess.run(["guestunmount", folder], check=True)


def written(path: Path) -> Path:
    path.write_bytes(b"x")
    return path


def race(store: Store, contents: list[bytes]) -> int:
    """How many of those that made the same new object at once did; it is one of theirs."""
    made_it: list[bytes] = []
    refused: list[str] = []
    gate = threading.Barrier(len(contents))

    def make(content: bytes) -> None:
        gate.wait()
        try:
            store.put("lock/one", content, new=True)
            made_it.append(content)
        except AlreadyThere as error:
            refused.append(error.key)

    threads = [threading.Thread(target=make, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made_it) + len(refused) == len(contents) and store.get("lock/one") in made_it
    return len(made_it)
