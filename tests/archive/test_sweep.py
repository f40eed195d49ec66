"""What no kept generation needs goes, and nothing else, however a sweep ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator

import pytest

from tests.archive.disk import MIB, Disk
from wavelift.agent.state import MigrationState
from wavelift.archive.archive import Archive
from wavelift.archive.errors import NoGeneration, PacksLost
from wavelift.archive.lease import Busy, held
from wavelift.archive.sweep import sweep
from wavelift.archive.verify import verify
from wavelift.stores.base import Entry, Unavailable
from wavelift.stores.memory import MemoryStore


def full(disk: Disk, *numbers: int) -> None:
    for number in numbers:
        disk.noise(0, 3 * MIB)
        disk.copy(number, None)


def keys(disk: Disk) -> set[str]:
    return {entry.key for entry in disk.store.list("")}


def test_a_generation_that_nobody_keeps_goes_with_all_it_has(disk: Disk) -> None:
    full(disk, 1)
    before = keys(disk)
    full(disk, 2, 3)
    disk.noise(0, 100)
    disk.copy(4, 3)
    swept = sweep(disk.archive, [1], 0)
    assert (swept.generations, swept.kept) == ((2,), (1, 3, 4)) and swept.objects and swept.bytes > 3 * MIB
    assert keys(disk) >= before and not any(key.startswith(("packs/2/", "generations/2")) for key in keys(disk))
    assert disk.read(4) == disk.path.read_bytes()
    for number in (1, 3, 4):
        assert verify(Archive.open(disk.store, disk.key), number).restorable
    tables = {key for key in keys(disk) if key.startswith("maps/segments/")}
    assert len(tables) == 3 and "maps/2.map" not in keys(disk)
    again = sweep(disk.archive, [1], 0)
    assert (again.generations, again.objects) == ((), 0)


def test_the_newest_stays_and_what_is_young_too(disk: Disk) -> None:
    full(disk, 1, 2)
    assert sweep(disk.archive, [], 3600).objects == 0
    assert sweep(disk.archive, [], 0).generations == (1,) and disk.archive.generations() == [2]


def test_what_is_to_be_kept_must_be_there(disk: Disk) -> None:
    full(disk, 1, 2)
    before = keys(disk)
    with pytest.raises(NoGeneration):
        sweep(disk.archive, [7], 0)
    assert keys(disk) == before


def test_packs_of_an_unfinished_young_generation_stay(disk: Disk) -> None:
    full(disk, 1)
    disk.noise(0, 3 * MIB)
    left = disk.give_up(2)
    sweep(disk.archive, [1], 3600)
    assert left and disk.packs(2) == left
    disk.copy(2, None)
    assert disk.read(2) == disk.path.read_bytes()


def test_an_attempt_whose_packs_were_swept_never_becomes_a_generation(disk: Disk) -> None:
    """Its journal still says that they were taken."""
    full(disk, 1)
    disk.noise(0, 3 * MIB)
    left = disk.give_up(2)
    swept = sweep(disk.archive, [1], 0)
    assert swept.objects >= len(left) and disk.packs(2) == []
    result = disk.send(2)
    with pytest.raises(PacksLost):
        disk.commit(2, result)
    assert disk.archive.generations() == [1]
    # A sweep of what is left says no less.
    sweep(disk.archive, [1], 0)
    with pytest.raises(PacksLost):
        disk.commit(2, result)
    MigrationState(disk.state, "web").disown(2)
    disk.copy(2, None)
    assert disk.read(2) == disk.path.read_bytes() and verify(disk.archive, 2).restorable


def test_leftovers_of_a_kept_generation_go(disk: Disk) -> None:
    disk.noise(0, 3 * MIB)
    left = disk.give_up(1)
    full(disk, 1)
    sweep(disk.archive, [1], 0)
    assert not set(left) & keys(disk) and disk.read() == disk.path.read_bytes()


class Trying(MemoryStore):
    """Stops answering after so many calls of one kind."""

    lists = deletes = 1 << 30

    def list(self, prefix: str) -> Iterator[Entry]:
        for entry in super().list(prefix):
            if self.lists == 0:
                raise Unavailable("No answer in time.", "Try again.")
            self.lists -= 1
            yield entry

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            if self.deletes == 0:
                raise Unavailable("No answer in time.", "Try again.")
            self.deletes -= 1
            super().delete([key])


@pytest.fixture
def trying(tmp_path_factory: pytest.TempPathFactory) -> tuple[Disk, Trying]:
    store = Trying()
    disk = Disk(tmp_path_factory.mktemp("disk"), store)
    full(disk, 1, 2)
    return disk, store


def test_a_list_that_is_cut_short_deletes_nothing(trying: tuple[Disk, Trying]) -> None:
    disk, store = trying
    before, listed = keys(disk), 0
    while True:
        store.lists = listed
        try:
            sweep(disk.archive, [2], 0)
        except Unavailable:
            store.lists = 1 << 30
            assert {key for key in keys(disk) if not key.startswith("locks/")} == before
            listed += 1
        else:
            break
    store.lists = 1 << 30
    assert listed > len(before) / 2 and disk.archive.generations() == [2]


def test_one_that_is_cut_short_is_ended_by_the_next(trying: tuple[Disk, Trying]) -> None:
    disk, store = trying
    wanted = disk.path.read_bytes()
    for count in (0, 1, 2, 1):
        store.deletes = count
        with pytest.raises(Unavailable):
            sweep(disk.archive, [2], 0)
        store.deletes = 1 << 30
        assert disk.read(2) == wanted
        for number in disk.archive.generations():
            assert number == 2 or verify(disk.archive, number).restorable
    sweep(disk.archive, [2], 0)
    assert {key.split("/")[1] for key in keys(disk) if key.startswith("packs/")} == {"2"}
    assert disk.read() == wanted


def test_a_second_one_at_the_same_time_is_refused(disk: Disk) -> None:
    full(disk, 1, 2)
    with held(disk.archive.store, "sweep"):
        with pytest.raises(Busy) as caught:
            sweep(Archive.open(disk.store, disk.key), [2], 0)
        assert f"process {os.getpid()} on " in caught.value.who
        assert disk.archive.generations() == [1, 2]
    sweep(disk.archive, [2], 0)
    assert disk.archive.generations() == [2]


def test_a_commit_and_a_sweep_wait_for_each_other(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    full(disk, 1)
    with held(disk.archive.store, "commit"), pytest.raises(Busy, match="commit"):
        sweep(disk.archive, [1], 0)
    monkeypatch.setattr("wavelift.archive.lease._PAUSE_SECONDS", 0.01)
    disk.noise(0, 3 * MIB)
    result = disk.send(2)
    made: list[int] = []
    with monkeypatch.context() as short, held(disk.archive.store, "sweep"), pytest.raises(Busy, match="sweep"):
        short.setattr("wavelift.archive.commit._SWEPT_SECONDS", 0.0)
        disk.commit(2, result)
    with held(disk.archive.store, "sweep"):
        thread = threading.Thread(target=lambda: made.append(disk.commit(2, result).generation))
        thread.start()
        while not any(entry.key.startswith("locks/commit-") for entry in disk.store.list("locks/")):
            pass
        assert made == [] and disk.archive.generations() == [1]
    thread.join()
    assert made == [2]
