"""Hydration, bytes compared: any generation onto any base, stopped and gone on with, from archives that lost packs."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.archive.filling import Blocks, MemoryTarget, add, block_at, make_archive, map_of, pack_of
from wavelift.archive.archive import Archive
from wavelift.archive.layout import Generation
from wavelift.blocks.compare import SizesDiffer, Tables
from wavelift.blocks.digest import BLOCK, SEGMENT
from wavelift.hydrate.hydrate import AccessLost, Hydrated, hydrate
from wavelift.hydrate.journal import Subject, Work
from wavelift.stores.base import Denied, Unavailable
from wavelift.stores.disk_label import DiskMissing
from wavelift.stores.memory import MemoryStore

# Two segments, the last block a sector; blocks on both sides of the border.
SIZE = SEGMENT + 5 * BLOCK + 512
NUMBERS = [0, 1, 2, 3, 9, 16382, 16383, 16384, 16385, 16388, 16389]


def fill(
    archive: Archive,
    number: int,
    folder: Path,
    target: MemoryTarget,
    *,
    base: Tables | None = None,
    zeroed: bool = False,
    check: Callable[[], None] = lambda: None,
    workers: int = 4,
) -> Hydrated:
    """As its callers do it."""
    chain = list(archive.chain(number))
    wanted = archive.map(chain[0])
    subject = Subject(archive.id, chain[0].root, None if base is None else "base", "mark")
    work = Work.resume(folder, subject, wanted) or Work.begin(folder, subject, wanted, base, zeroed, lambda: None)
    try:
        return hydrate(archive, chain, work, target, workers=workers, check=check)
    finally:
        work.close()


class Stop(Exception):
    """What a check may raise."""


class CountingStore(MemoryStore):
    """Knows how often each pack was asked for, and may refuse from some time on."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.refuse_after: int | None = None

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if key.startswith("packs/"):
            if self.refuse_after is not None and len(self.asked) >= self.refuse_after:
                raise Denied("memory: refuses it: expired.", "Check the credentials.")
            self.asked.append(key)
        return super().get(key, start, length)


# By number of a block, what it is made of; 0 is zeroes.
Seeds = dict[int, int]
# Of each generation: its content, its packs, and a pack that an attempt left which was given up.
History = list[tuple[Seeds, list[Seeds], Seeds]]


@st.composite
def histories(draw: st.DrawFn) -> History:
    made: History = []
    content: Seeds = {}
    for _ in range(draw(st.integers(1, 4))):
        changed = draw(st.dictionaries(st.sampled_from(NUMBERS), st.integers(0, 4), max_size=8))
        content = {number: seed for number, seed in {**content, **changed}.items() if seed}
        packs: list[Seeds] = [{} for _ in range(draw(st.integers(1, 3)))]
        for number, seed in changed.items():
            # Some blocks lie in two packs.
            for place in draw(st.sets(st.integers(0, len(packs) - 1), min_size=1)) if seed else ():
                packs[place][number] = seed
        left = draw(st.dictionaries(st.sampled_from(NUMBERS), st.integers(5, 6), max_size=3))
        made.append((content, packs, left))
    return made


def blocks(seeds: Seeds) -> Blocks:
    return {number: block_at(SIZE, number, seed) for number, seed in seeds.items()}


def build(archive: Archive, history: History) -> None:
    made: Generation | None = None
    for number, (content, packs, left) in enumerate(history, 1):
        leftovers = [blocks(left)] if left else []
        made = add(archive, number, SIZE, blocks(content), list(map(blocks, packs)), base=made, leftovers=leftovers)


@settings(max_examples=40, deadline=None)
@given(histories(), st.booleans(), st.sampled_from([1, 4]), st.data())
def test_any_generation_comes_onto_any_base_byte_for_byte(
    history: History, sealed: bool, workers: int, data: st.DataObject
) -> None:
    archive = make_archive(sealed=sealed)
    build(archive, history)
    wanted = data.draw(st.integers(1, len(history)), "wanted")
    base = data.draw(st.integers(0, len(history)), "base")
    junk = data.draw(st.booleans(), "junk") and base == 0
    before = blocks(history[base - 1][0]) if base else {4: b"j" * BLOCK, 16386: b"j" * BLOCK} if junk else {}
    target = MemoryTarget(before)
    with tempfile.TemporaryDirectory() as folder:
        onto = map_of(SIZE, before, Path(folder)) if base else None
        done = fill(archive, wanted, Path(folder, "work"), target, base=onto, zeroed=not junk, workers=workers)
    content = blocks(history[wanted - 1][0])
    assert target.blocks == content
    assert (done.missing, done.damaged) == ([], [])
    # No block that was there already; two workers at once may have the same block of two packs.
    assert set(target.written) == {number for number, each in content.items() if before.get(number) != each}
    assert workers > 1 or len(target.written) == len(set(target.written))


@settings(max_examples=25, deadline=None)
@given(histories(), st.integers(0, 4))
def test_what_was_stopped_goes_on_and_fetches_no_pack_twice(history: History, refuse_after: int) -> None:
    store = CountingStore()
    archive = make_archive(store)
    build(archive, history)
    store.asked.clear()
    target = MemoryTarget({4: b"j" * BLOCK})
    with tempfile.TemporaryDirectory() as folder:
        store.refuse_after = refuse_after
        try:
            fill(archive, len(history), Path(folder), target, workers=1)
        except AccessLost as error:
            assert error.retryable and "goes on" in error.remedy
        before, store.refuse_after = len(store.asked), None
        done = fill(archive, len(history), Path(folder), target)
    assert target.blocks == blocks(history[-1][0])
    assert len(store.asked) == len(set(store.asked)) == done.packs_read >= before
    assert done.wire_bytes == sum(store.size(key) for key in store.asked)


SMALL = 4 << 20


@pytest.fixture
def small() -> tuple[Archive, CountingStore, list[Blocks]]:
    """Two generations of 16 packs each; the second has other content in every other block."""
    store = CountingStore()
    archive = make_archive(store)
    first = {number: block_at(SMALL, number, 1000 + number) for number in range(64)}
    second = {**first, **{number: block_at(SMALL, number, 2000 + number) for number in range(0, 64, 2)}}
    packs = [{number: first[number] for number in range(at, at + 4)} for at in range(0, 64, 4)]
    made = add(archive, 1, SMALL, first, packs)
    changed = [{number: second[number] for number in range(at, at + 4, 2)} for at in range(0, 64, 4)]
    add(archive, 2, SMALL, second, changed, base=made)
    return archive, store, [first, second]


def test_packs_that_are_damaged_or_missing_cost_what_only_they_held(
    small: tuple[Archive, CountingStore, list[Blocks]], tmp_path: Path
) -> None:
    archive, store, (_, content) = small
    first, second = (archive.packs(generation) for generation in reversed(list(archive.chain(2))))
    gone = first.key(first[3])
    store.delete([gone])
    # The end of its second record: the first was proven before.
    spoilt = second.key(second[5])
    data = bytearray(store.get(spoilt))
    data[-200] ^= 1
    store.put(spoilt, data)
    target = MemoryTarget()
    done = fill(archive, 2, tmp_path / "work", target, zeroed=True)
    at = second[5].start // BLOCK
    lost = {first[3].start // BLOCK + 1, first[3].start // BLOCK + 3, at + 2}
    assert target.blocks == {number: each for number, each in content.items() if number not in lost}
    assert done.missing == sorted((number * BLOCK, (number + 1) * BLOCK) for number in lost)
    assert done.missing_bytes == 3 * BLOCK and done.damaged == sorted([gone, spoilt])
    # Brought back from another copy, they are all that is fetched.
    data[-200] ^= 1
    store.put(spoilt, data)
    store.put(gone, pack_of(SMALL, first[3].sequence, {n: small[2][0][n] for n in range(12, 16)}))
    asked = len(store.asked)
    assert fill(archive, 2, tmp_path / "work", target, zeroed=True).missing == []
    assert target.blocks == content and sorted(store.asked[asked:]) == sorted([gone, spoilt])


def test_a_check_that_raises_ends_it_and_nothing_is_written_any_more(
    small: tuple[Archive, CountingStore, list[Blocks]], tmp_path: Path
) -> None:
    archive, _, (_, content) = small
    target = MemoryTarget()

    def check() -> None:
        if target.written:
            raise Stop

    with pytest.raises(Stop):
        fill(archive, 2, tmp_path / "work", target, zeroed=True, check=check, workers=1)
    seen = len(target.written)
    assert seen > 0
    fill(archive, 2, tmp_path / "work", target, zeroed=True)
    assert target.blocks == content


def test_a_store_that_does_not_answer_holds_up_nobody_who_wants_it_to_end(
    small: tuple[Archive, CountingStore, list[Blocks]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, store, (_, content) = small
    answer, asked, get = threading.Event(), threading.Event(), store.get

    def late(key: str, start: int = 0, length: int | None = None) -> bytes:
        if key.endswith(".pack"):
            asked.set()
            answer.wait()
        return get(key, start, length)

    def check() -> None:
        if asked.is_set():
            raise Stop

    monkeypatch.setattr(store, "get", late)
    target = MemoryTarget()
    with pytest.raises(Stop):
        fill(archive, 2, tmp_path / "work", target, zeroed=True, check=check)
    monkeypatch.undo()
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("crew")]
    answer.set()
    for thread in workers:
        thread.join()
    # What comes afterwards is not written.
    assert len(workers) == 4 and target.written == []
    fill(archive, 2, tmp_path / "work", target, zeroed=True)
    assert target.blocks == content


def test_a_bad_spot_of_a_disk_costs_its_pack_and_a_store_that_is_gone_ends_it(
    small: tuple[Archive, CountingStore, list[Blocks]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, store, _ = small
    rows, get = archive.packs(archive.load(1)), store.get
    bad: set[str] = {rows.key(rows[2])}
    number = errno.EIO

    def broken(key: str, start: int = 0, length: int | None = None) -> bytes:
        if key in bad and number == 0:
            raise DiskMissing(f"There is no {key}", ["WL-02"])
        if key in bad:
            raise Unavailable("It cannot be read.", "Look at the disk.") from OSError(number, os.strerror(number))
        return get(key, start, length)

    monkeypatch.setattr(store, "get", broken)
    done = fill(archive, 1, tmp_path / "work", MemoryTarget(), zeroed=True)
    assert (done.damaged, done.missing) == (sorted(bad), [(rows[2].start, rows[2].end)])
    number = 0
    done = fill(archive, 1, tmp_path / "elsewhere", MemoryTarget(), zeroed=True)
    assert done.damaged == [f"{rows.key(rows[2])} on WL-02"] and done.missing == [(rows[2].start, rows[2].end)]
    number = errno.ENOENT
    with pytest.raises(Unavailable):
        fill(archive, 1, tmp_path / "again", MemoryTarget(), zeroed=True)


def test_the_journal_of_another_subject_is_void(
    small: tuple[Archive, CountingStore, list[Blocks]], tmp_path: Path
) -> None:
    archive, _, _ = small
    fill(archive, 1, tmp_path / "work", MemoryTarget(), zeroed=True)
    wanted = archive.map(archive.load(1))
    subject = Subject(archive.id, wanted.root.hex(), None, "mark")
    kept = Work.resume(tmp_path / "work", subject, wanted)
    assert kept is not None and kept.left.bytes == 0
    kept.close()
    for other in (
        Subject(archive.id, archive.load(2).root, None, "mark"),
        Subject(archive.id, wanted.root.hex(), "00", "mark"),
        Subject(archive.id, wanted.root.hex(), None, "another"),
        Subject("another", wanted.root.hex(), None, "mark"),
    ):
        assert Work.resume(tmp_path / "work", other, wanted) is None


@pytest.fixture
def begun(
    small: tuple[Archive, CountingStore, list[Blocks]], tmp_path: Path
) -> Iterator[tuple[Path, Callable[[], Work | None]]]:
    """The folder of a work that has ended, and what goes on from it."""
    archive, _, _ = small
    fill(archive, 1, tmp_path / "work", MemoryTarget(), zeroed=True)
    wanted = archive.map(archive.load(1))
    opened: list[Work] = []

    def resume() -> Work | None:
        found = Work.resume(tmp_path / "work", Subject(archive.id, wanted.root.hex(), None, "mark"), wanted)
        opened.extend([found] if found else [])
        return found

    yield tmp_path / "work", resume
    for each in opened:
        each.close()


def test_a_torn_tail_is_dropped_and_what_came_before_stands(
    begun: tuple[Path, Callable[[], Work | None]],
) -> None:
    folder, resume = begun
    lines = (folder / "journal").read_bytes().splitlines(keepends=True)
    (folder / "journal").write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    work = resume()
    assert work is not None and work.left.bytes == 4 * BLOCK
    work.note(None, list(work.left.all()), 7)
    again = resume()
    assert again is not None and (again.left.bytes, again.wire_bytes) == (0, work.wire_bytes + 7)


@pytest.mark.parametrize("spoil", ["plan", "segments", "journal"])
def test_a_damaged_work_is_begun_anew(begun: tuple[Path, Callable[[], Work | None]], spoil: str) -> None:
    folder, resume = begun
    path = next((folder / spoil).iterdir()) if spoil == "segments" else folder / spoil
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    assert resume() is None
    path.unlink()
    assert resume() is None


def test_a_base_of_another_size_is_refused(small: tuple[Archive, CountingStore, list[Blocks]], tmp_path: Path) -> None:
    archive, _, (first, _) = small
    other = map_of(2 * SMALL, first, tmp_path)
    target = MemoryTarget(first)
    with pytest.raises(SizesDiffer):
        fill(archive, 2, tmp_path / "work", target, base=other)
    assert target.written == []


def test_an_error_of_the_target_ends_it(small: tuple[Archive, CountingStore, list[Blocks]], tmp_path: Path) -> None:
    archive, _, _ = small

    class Full(MemoryTarget):
        def write(self, offset: int, data: memoryview) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fill(archive, 2, tmp_path / "work", Full(), zeroed=True)
