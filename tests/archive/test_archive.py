"""An archive: what goes in comes out, at any generation, whatever was given up or damaged in between."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.archive.disk import MASTER, MIB, SIZE, Disk, content, flip
from wavelift.agent.state import MigrationState
from wavelift.archive.archive import Archive
from wavelift.archive.commit import commit
from wavelift.archive.errors import (
    ArchiveError,
    BlocksLost,
    Damaged,
    KeyMissing,
    NoArchive,
    NoGeneration,
    NotSealed,
    OtherContent,
    PacksLost,
)
from wavelift.archive.keys import derived
from wavelift.archive.layout import row_of
from wavelift.blocks.attempts import PACKS, attempt_of
from wavelift.blocks.digest import BLOCK
from wavelift.sources.packs import ArchiveSource, BaseElsewhere
from wavelift.stores.base import AlreadyThere, Store
from wavelift.stores.directory import DirectoryStore
from wavelift.stores.memory import MemoryStore


def test_every_generation_comes_back(disk: Disk) -> None:
    disk.noise(3000, 5 * MIB)
    disk.write(9 * MIB, b"text that compresses " * 100_000)
    disk.noise(SIZE - 700, 700)
    contents = [disk.path.read_bytes()]
    disk.copy(1, None)
    for generation in (2, 3, 4):
        disk.noise(disk.random.randrange(SIZE - MIB), 90_000)
        disk.write(generation * BLOCK, bytes(2 * BLOCK))
        contents.append(disk.path.read_bytes())
        made = disk.copy(generation, generation - 1)
        assert made.base == generation - 1 and made.packs == len(disk.packs(generation)) > 0
        assert made.pack_bytes == sum(disk.store.size(key) for key in disk.packs(generation)) < 5 * BLOCK
    assert disk.archive.generations() == [1, 2, 3, 4]
    assert [each.generation for each in disk.archive.chain(3)] == [3, 2, 1]
    for generation, wanted in enumerate(contents, 1):
        assert disk.read(generation) == wanted
    assert disk.read() == contents[-1]


def test_reads_from_any_offset(disk: Disk) -> None:
    disk.noise(0, 4 * MIB)
    disk.copy(1, None)
    disk.noise(MIB + 5, 10)
    disk.copy(2, 1)
    wanted, opened = disk.path.read_bytes(), disk.open()
    for _ in range(60):
        start = disk.random.randrange(6 * MIB)
        view = memoryview(bytearray(disk.random.randrange(1, 3 * MIB)))
        opened.readinto(start, view)
        assert view == wanted[start : start + len(view)]


def test_a_pack_says_what_it_is_without_a_key(disk: Disk) -> None:
    disk.noise(MIB, 5 * MIB)
    made = disk.copy(1, None)
    rows = disk.archive.packs(made)
    listed = [row_of(key.rpartition("/")[2], disk.store.size(key)) for key in disk.packs(1)]
    assert list(rows) == listed and [rows[number] for number in range(len(rows))] == listed
    for row in rows:
        assert blake3(disk.store.get(rows.key(row))).digest() == row.digest
    spoken = {block for row in rows for block in range(row.start, row.end, BLOCK)}
    assert set(range(MIB, 6 * MIB, BLOCK)) <= spoken


def test_a_source_that_moved_on_leaves_what_is_never_read(disk: Disk) -> None:
    """The next attempt begins anew: what the one before left becomes no part of the generation, and goes."""
    disk.noise(0, SIZE)
    left = disk.give_up(1)
    disk.noise(0, SIZE)
    made = disk.copy(1, None)
    assert made.packs == len(disk.packs(1)) - len(left)
    disk.archive.tidy(1)
    assert left and not set(left) & set(disk.packs(1)) and made.packs == len(disk.packs(1))
    assert disk.read() == disk.path.read_bytes()


def test_what_an_attempt_still_relies_on_is_kept(disk: Disk) -> None:
    """Where a source went on, the packs of the attempt before may be as good as the last one's."""
    disk.noise(0, SIZE)
    disk.send(1)
    sent, state = disk.packs(1), MigrationState(disk.state, "web")
    found, begun = state.maps("sda").load(1), state.begun(1)
    assert found is not None and begun is not None
    later = (attempt_of(begun["first"]) + 1) * PACKS
    made = commit(Archive.open(disk.store, disk.key), "web", 1, None, None, found, "offline", later)
    assert made.packs == len(sent) and disk.read() == disk.path.read_bytes()


def test_a_copy_that_was_stopped_goes_on(disk: Disk) -> None:
    disk.noise(0, SIZE)
    left = disk.give_up(1)
    disk.copy(1, None)
    assert left and set(left) <= set(disk.packs(1))
    assert disk.read() == disk.path.read_bytes()


def test_what_was_put_must_be_there(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that this process put is missed by its name."""
    monkeypatch.setattr("wavelift.archive.commit._LISTED_SECONDS", 0.0)
    disk.noise(0, SIZE)
    result = disk.send(1)
    gone = disk.packs(1)[0]
    disk.store.delete([gone])
    with pytest.raises(PacksLost) as lost:
        disk.commit(1, result)
    assert lost.value.packs == [gone] and disk.archive.generations() == []


def test_blocks_of_which_no_pack_speaks_keep_a_generation_from_being_made(disk: Disk) -> None:
    """As one that another process put, and that is gone, leaves them."""
    disk.noise(0, SIZE)
    result = disk.send(1)
    gone = disk.packs(1)[0]
    row = row_of(gone.rpartition("/")[2], 0)
    disk.store.delete([gone])
    disk.archive = Archive.open(disk.store, disk.key)
    with pytest.raises(BlocksLost) as caught:
        disk.commit(1, result)
    assert row is not None and caught.value.ranges == [(row.start, row.end)] and caught.value.disk == "sda"
    assert disk.archive.generations() == []


def test_so_they_do_in_an_increment(disk: Disk) -> None:
    disk.noise(0, SIZE)
    disk.copy(1, None)
    disk.noise(5 * MIB, 10)
    result = disk.send(2, 1)
    disk.store.delete(disk.packs(2))
    disk.archive = Archive.open(disk.store, disk.key)
    with pytest.raises(BlocksLost) as caught:
        disk.commit(2, result)
    assert caught.value.ranges == [(5 * MIB, 5 * MIB + BLOCK)]


@pytest.mark.parametrize("damage", ["gone", "payload", "header", "cut"])
def test_damage_is_named_and_costs_no_more_than_it_must(plain: Disk, damage: str) -> None:
    plain.noise(0, SIZE)
    plain.copy(1, None)
    victim = plain.largest(1)
    if damage == "gone":
        plain.store.delete([victim])
    elif damage == "cut":
        plain.change(victim, lambda raw: raw.__delitem__(slice(len(raw) // 2, None)))
    else:
        plain.change(victim, flip(300_000 if damage == "payload" else 150))
    with pytest.raises(BlocksLost) as caught:
        plain.read()
    assert (caught.value.code, caught.value.disk, caught.value.packs) == ("blocks_lost", "sda", [victim])
    wanted, opened = plain.path.read_bytes(), plain.open()
    whole = bad = 0
    for start in range(0, SIZE // BLOCK * BLOCK, BLOCK):
        view = memoryview(bytearray(BLOCK))
        try:
            opened.readinto(start, view)
        except BlocksLost as lost:
            assert [(start, start + BLOCK)] == lost.ranges and lost.packs == [victim]
            bad += 1
        else:
            assert view == wanted[start : start + BLOCK]
            whole += 1
    assert bad and whole >= (SIZE - 2 * MIB) // BLOCK - 1


@pytest.mark.parametrize(
    "change", [{"packs": "1"}, {"disk": 7}, {"base": 1.5}, {"root": None}, {"version": 1}, {"more": 1}]
)
def test_a_record_of_another_shape_is_refused(plain: Disk, change: dict[str, Any]) -> None:
    plain.noise(0, MIB)
    plain.copy(1, None)
    body = json.dumps({**json.loads(plain.store.get("generations/1")[9:]), **change}).encode()
    plain.store.put("generations/1", b"%08x %s" % (zlib.crc32(body), body))
    with pytest.raises(Damaged, match="generations/1"):
        plain.archive.load(1)


@pytest.mark.parametrize(
    "about", [b"", b"{}", b"[]", b'{"version": 1, "id": "0", "key": null, "origin": null}', b"\xff"]
)
def test_what_describes_no_archive_is_refused(about: bytes) -> None:
    store = MemoryStore()
    store.put("archive.json", about)
    with pytest.raises(ArchiveError, match=r"archive\.json"):
        Archive.open(store, None)


def test_a_generation_is_made_once(disk: Disk) -> None:
    disk.noise(0, MIB)
    made = disk.copy(1, None)
    found = disk.archive.map(made)
    assert commit(disk.archive, "web", 1, None, None, found, "offline", 0) == made
    disk.noise(0, MIB)
    newer = disk.archive.map(disk.copy(2, 1))
    with pytest.raises(OtherContent) as caught:
        commit(disk.archive, "web", 1, None, None, newer, "offline", 0)
    assert (caught.value.root, caught.value.wanted) == (made.root, newer.root.hex())
    assert disk.archive.load(1) == made


def test_what_is_built_on_is_what_its_root_says(disk: Disk) -> None:
    disk.noise(0, MIB)
    disk.copy(1, None)
    disk.noise(0, 100)
    disk.send(2, 1)
    found = disk.archive.map(disk.archive.load(1))
    with pytest.raises(OtherContent):
        commit(disk.archive, "web", 3, 1, "00" * 32, found, "offline", 0)
    assert disk.archive.generations() == [1]


def test_a_base_that_lies_elsewhere_is_named(disk: Disk, tmp_path: Path) -> None:
    disk.noise(0, MIB)
    first = disk.copy(1, None)
    here = disk.archive
    disk.store = MemoryStore()
    disk.archive = Archive.create(disk.store, key=disk.key)
    disk.noise(0, 100)
    result = disk.send(2, 1)
    disk.archive, there = here, disk.archive
    found = here.map(first)
    made = commit(there, "web", 2, 1, first.root, found, result["disks"][0]["consistency"], 0)
    assert (made.base, made.base_root) == (1, first.root) and [each.generation for each in there.chain(2)] == [2]
    with pytest.raises(BaseElsewhere) as caught:
        ArchiveSource(lambda: there).open()
    assert (caught.value.base, caught.value.root) == (1, first.root)


def test_what_is_not_there_is_said(disk: Disk, tmp_path: Path) -> None:
    with pytest.raises(NoGeneration, match="it has: none"):
        disk.open()
    with pytest.raises(NoGeneration) as caught:
        disk.archive.load(7)
    assert caught.value.there == []
    with pytest.raises(AlreadyThere):
        Archive.create(disk.store, key=None)
    with pytest.raises(NoArchive):
        Archive.open(DirectoryStore(tmp_path), None)


def test_keys_open_what_they_are_for(tmp_path: Path) -> None:
    stores: list[Store] = [MemoryStore(), MemoryStore()]
    first, second = (Archive.create(store, key=MASTER) for store in stores)
    with pytest.raises(KeyMissing):
        Archive.open(stores[0], None)
    with pytest.raises(KeyMissing):
        Archive.open(stores[0], derived(bytes(32)))
    # Who was given the key of one archive has not got that of another.
    with pytest.raises(KeyMissing):
        Archive.open(stores[1], lambda _: MASTER(first.id))
    assert Archive.open(stores[1], lambda _: MASTER(second.id)).sealed
    # Somebody who can write there cannot have plain objects taken for sealed ones.
    stores[0].put("archive.json", stores[0].get("archive.json").replace(about_key(stores[0]), b"null"))
    with pytest.raises(NotSealed):
        Archive.open(stores[0], MASTER)


def about_key(store: Store) -> bytes:
    return json.dumps(json.loads(store.get("archive.json"))["key"]).encode()


def test_packs_that_a_killed_process_left(plain: Disk, tmp_path: Path) -> None:
    """Killed while it writes: each pack is whole or has no name of one, and a later copy goes on."""
    plain.noise(0, SIZE)
    program = (
        "import sys; from pathlib import Path; import tests.archive.disk as t\n"
        "d = t.Disk.__new__(t.Disk); f = Path(sys.argv[1]); d.path, d.state = f / 'disk.raw', f / 'state'\n"
        "d.archive = t.Archive.open(t.DirectoryStore(f / 'kept'), None); d.copy(1, None)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    while child.poll() is None and not list(tmp_path.glob("kept/packs/1/*.pack")):
        time.sleep(0.001)
    child.kill()
    child.wait()
    for path in tmp_path.glob("kept/packs/1/*.pack"):
        row = row_of(path.name, path.stat().st_size)
        assert row is not None and blake3(path.read_bytes()).digest() == row.digest
    plain.copy(1, None)
    assert plain.read() == plain.path.read_bytes()


@pytest.mark.parametrize("key", [None, MASTER], ids=["plain", "sealed"])
@settings(max_examples=6, deadline=None)
@given(
    history=st.lists(
        st.lists(st.tuples(st.integers(0, 63), st.integers(1, 40), st.integers(0, 3)), max_size=6),
        min_size=1,
        max_size=4,
    ),
    in_memory=st.booleans(),
)
def test_any_history_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    key: Any,
    history: list[list[tuple[int, int, int]]],
    in_memory: bool,
) -> None:
    """Blocks written with few different contents, zeroes among them, so that old content comes again."""
    disk = Disk(tmp_path_factory.mktemp("history"), MemoryStore() if in_memory else None, key, 64 * BLOCK)
    contents = []
    for generation, writes in enumerate(history, 1):
        for start, count, kind in writes:
            for block in range(start, min(64, start + count)):
                disk.write(block * BLOCK, bytes([kind]) * BLOCK)
        contents.append(disk.path.read_bytes())
        disk.copy(generation, generation - 1 or None)
    for generation, wanted in enumerate(contents, 1):
        assert content(disk.open(generation)) == wanted
