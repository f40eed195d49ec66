"""Whatever is done to an object of an archive is found, and what it costs is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.archive.disk import MASTER, MIB, SIZE, Disk, flip
from wavelift.archive.archive import Archive
from wavelift.archive.errors import ArchiveError
from wavelift.archive.layout import row_of
from wavelift.archive.verify import verify
from wavelift.blocks.digest import BLOCK
from wavelift.blocks.errors import BlockError
from wavelift.stores.base import StoreError, Unavailable
from wavelift.stores.memory import MemoryStore


def two(disk: Disk) -> Disk:
    disk.noise(0, 4 * MIB)
    disk.copy(1, None)
    disk.noise(MIB, 3 * BLOCK)
    disk.copy(2, 1)
    return disk


def test_a_sound_generation_can_be_restored(disk: Disk) -> None:
    two(disk)
    told: list[tuple[int, int]] = []
    verdict = verify(disk.archive, 2, progress=lambda done, total: told.append((done, total)))
    assert verdict.restorable and verdict.flaws == [] and verdict.lost == []
    assert verdict.packs == len(disk.packs(1)) + len(disk.packs(2))
    assert told[-1] == (verdict.bytes, verdict.bytes) and len(told) == verdict.packs


def test_a_flaw_is_named_with_what_it_costs(disk: Disk) -> None:
    """A block that a later generation has again is not lost for that one."""
    two(disk)
    victim = next(key for key in disk.packs(1) if row_of(key.rpartition("/")[2], 0).start == MIB)  # type: ignore[union-attr]
    disk.change(victim, flip(5000))
    before, after = verify(disk.archive, 1), verify(disk.archive, 2)
    assert [flaw.key for flaw in before.flaws] == [flaw.key for flaw in after.flaws] == [victim]
    assert before.lost == [(MIB, 2 * MIB)] and after.lost == [(MIB + 3 * BLOCK, 2 * MIB)]
    assert not before.restorable and not after.restorable
    disk.store.delete([victim])
    assert verify(disk.archive, 2).flaws[0].why == "it is missing"


def test_a_damaged_table_costs_its_segment(disk: Disk) -> None:
    two(disk)
    found = disk.archive.map(disk.archive.load(2))
    key = f"maps/segments/{found.segment(0).hex()}"
    disk.change(key, flip(200))
    verdict = verify(Archive.open(disk.store, disk.key), 2)
    assert [flaw.key for flaw in verdict.flaws] == [key] and verdict.lost == [(0, SIZE)]


def test_without_its_base_only_the_flaws_are_lost(disk: Disk) -> None:
    two(disk)
    generation = disk.archive.load(2)
    disk.store.delete(["generations/1"])
    verdict = verify(disk.archive, 2)
    assert verdict.elsewhere == (1, generation.base_root) and verdict.lost == [] and not verdict.restorable
    disk.store.delete(disk.packs(2))
    assert verify(disk.archive, 2).lost == [(MIB, MIB + 3 * BLOCK)]


class Counting(MemoryStore):
    """Which packs were asked for, by generation."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if key.startswith("packs/"):
            self.read.append(key)
        return super().get(key, start, length)


@pytest.fixture
def counted(tmp_path: Path) -> tuple[Disk, Counting]:
    """Three generations; the second and third bring a block or two."""
    store = Counting()
    disk = two(Disk(tmp_path, store, MASTER))
    disk.noise(MIB + BLOCK, 100)
    disk.write(2 * MIB, bytes(BLOCK))
    disk.copy(3, 2)
    store.read.clear()
    return disk, store


def test_what_was_proven_before_is_looked_for_and_not_read(counted: tuple[Disk, Counting]) -> None:
    disk, store = counted
    roots = {number: disk.archive.load(number).root for number in (1, 2, 3)}
    told: list[tuple[int, int]] = []
    verdict = verify(disk.archive, 3, progress=lambda *done: told.append(done), proven=roots[2])
    assert verdict.restorable and verdict.read == [3] and verdict.bytes == disk.archive.load(3).pack_bytes
    assert set(store.read) == set(disk.packs(3)) and told[-1] == (verdict.bytes, verdict.bytes)
    assert verify(disk.archive, 3, proven=roots[1]).read == [3, 2]
    # Roots that say nothing of what it builds on.
    for other in (roots[3], "ab" * 32):
        assert verify(disk.archive, 3, proven=other).read == [3, 2, 1]
    assert verify(disk.archive, 1, proven=roots[1]).read == [1]


def test_what_is_new_is_still_proven_to_the_last_block(counted: tuple[Disk, Counting]) -> None:
    disk, _ = counted
    root = disk.archive.load(2).root
    (victim,) = disk.packs(3)
    disk.change(victim, flip(4000))
    verdict = verify(disk.archive, 3, proven=root)
    assert [flaw.key for flaw in verdict.flaws] == [victim] and verdict.lost == [(MIB + BLOCK, MIB + 2 * BLOCK)]


@pytest.mark.parametrize("how", ["gone", "shorter", "map", "list"])
def test_where_something_proven_is_not_there_any_more_all_is_read(counted: tuple[Disk, Counting], how: str) -> None:
    disk, store = counted
    root, victim = disk.archive.load(2).root, disk.largest(1)
    if how == "gone":
        store.delete([victim])
    elif how == "shorter":
        disk.change(victim, lambda raw: raw.pop())
    elif how == "map":
        disk.change("maps/2.map", flip(200))
    else:
        store.delete(["generations/1.packs"])
        with pytest.raises(ArchiveError, match=r"generations/1\.packs"):
            verify(disk.archive, 3, proven=root)
        return
    verdict = verify(disk.archive, 3, proven=root)
    assert verdict.read == [3, 2, 1] and set(store.read) >= {*disk.packs(1), *disk.packs(2), *disk.packs(3)}
    assert verdict.restorable == (how == "map") and bool(verdict.lost) == (how != "map")


@pytest.mark.parametrize("proven", [False, True])
def test_a_base_elsewhere_stays_elsewhere(counted: tuple[Disk, Counting], proven: bool) -> None:
    disk, store = counted
    first, second = disk.archive.load(1).root, disk.archive.load(2).root
    store.delete(["generations/1"])
    verdict = verify(disk.archive, 3, proven=second if proven else None)
    assert verdict.elsewhere == (1, first) and verdict.lost == [] and not verdict.restorable
    assert verdict.read == ([3] if proven else [3, 2])


class Silent(MemoryStore):
    """Does not answer for packs."""

    silent = False

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if self.silent and key.startswith("packs/"):
            raise Unavailable("No answer.", "Try again.")
        return super().get(key, start, length)


def test_silence_is_no_verdict(tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Silent()
    disk = two(Disk(tmp_path_factory.mktemp("disk"), store))
    store.silent = True
    with pytest.raises(Unavailable):
        verify(disk.archive, 2)
    with pytest.raises(Unavailable):
        disk.read()


def test_it_can_be_stopped(disk: Disk) -> None:
    two(disk)
    with pytest.raises(InterruptedError):
        verify(disk.archive, 2, check=lambda: (_ for _ in ()).throw(InterruptedError()))


DAMAGES: dict[str, Callable[[bytearray, int], object]] = {
    "flipped": lambda raw, at: flip(at)(raw),
    "cut": lambda raw, at: raw.__delitem__(slice(at % len(raw), None)),
    "longer": lambda raw, at: raw.extend(b"\0" * (1 + at % 70)),
}


@pytest.fixture(scope="module", params=[None, MASTER], ids=["plain", "sealed"])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Disk:
    return two(Disk(tmp_path_factory.mktemp("kept"), MemoryStore(), request.param))


def found_out(disk: Disk) -> bool:
    """Whether who opens the archive anew and verifies it is told of anything."""
    try:
        archive = Archive.open(disk.store, disk.key)
        return archive.generations() != [1, 2] or bool(verify(archive, 2).flaws)
    except BlockError as error:
        assert isinstance(error, ArchiveError | StoreError) and error.remedy
        return True


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_whatever_is_done_to_an_object_is_found(kept: Disk, data: st.DataObject) -> None:
    # What a plain archive calls itself is of no account to what it holds.
    objects = {entry.key: kept.store.get(entry.key) for entry in kept.store.list("")}
    victims = sorted(key for key in objects if kept.key is not None or key != "archive.json")
    victims = [key for key in victims if not superseded(kept, key)]
    victim = data.draw(st.sampled_from(victims))
    what = data.draw(st.sampled_from([*DAMAGES, "gone", "renamed", "swapped"]))
    assert not found_out(kept)
    if what in DAMAGES:
        at = data.draw(st.integers(0, len(objects[victim]) - 1))
        kept.change(victim, lambda raw: DAMAGES[what](raw, at))
    else:
        kept.store.delete([victim])
    if what == "renamed":
        kept.store.put(f"{victim}x", objects[victim])
    elif what == "swapped":
        other = data.draw(st.sampled_from([key for key in victims if key != victim]))
        kept.store.put(victim, objects[other])
        kept.store.put(other, objects[victim])
    try:
        assert found_out(kept)
    finally:
        kept.store.delete([entry.key for entry in kept.store.list("")])
        for key, each in objects.items():
            kept.store.put(key, each)


def superseded(disk: Disk, key: str) -> bool:
    """The map of generation 1 is not part of what generation 2 needs."""
    first, second = (disk.archive.map(disk.archive.load(number)) for number in (1, 2))
    return key == "maps/1.map" or (
        key.startswith("maps/segments/") and key.rpartition("/")[2] == first.segment(0).hex() != second.segment(0).hex()
    )
