"""The budget that all copies of a process share."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from wavelift.blocks.copy import CopyDisk, CopySettings, copy_disks
from wavelift.blocks.memory import MemoryBudget
from wavelift.blocks.plan import Range
from wavelift.blocks.sink import Receipt
from wavelift.sources.image import ImageSource

from .conftest import pattern
from .test_copy import SIZE, MemorySink, image

MIB = 1 << 20


def never() -> bool:
    return False


def test_what_does_not_fit_waits_for_what_is_handed_back() -> None:
    budget = MemoryBudget(4 * MIB)
    first, second = budget.borrow(2 * MIB, never, "a"), budget.borrow(2 * MIB, never, "a")
    assert first is not None and second is not None and budget.used == 4 * MIB
    found: list[bytearray | None] = []
    waiter = threading.Thread(target=lambda: found.append(budget.borrow(2 * MIB, never, "a")))
    waiter.start()
    time.sleep(0.05)
    assert not found
    budget.hand_back(first, "a")
    waiter.join(10)
    # The same memory: fresh pages cost more.
    assert found[0] is first and budget.used == 4 * MIB


def test_who_alone_wants_more_than_there_is_gets_it() -> None:
    budget = MemoryBudget(4 * MIB)
    assert budget.reserve(3 * MIB) and not budget.reserve(2 * MIB)
    large = budget.borrow(64 * MIB, never, "a")
    assert large is not None and len(large) == 64 * MIB
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    assert budget.borrow(MIB, stop.is_set, "a") is None
    budget.hand_back(large, "a")
    budget.give_back(3 * MIB)
    assert budget.used == 0
    # And what is handed back beyond the budget is not kept.
    assert budget.borrow(64 * MIB, never, "a") is not large


@pytest.mark.parametrize("total", [1, 5 * MIB])
def test_many_copies_with_little_memory_all_end(tmp_path: Path, total: int) -> None:
    """Four copies of four workers each, of packs of different sizes, over a budget for one or two of them."""
    budget = MemoryBudget(total)
    path = image(tmp_path / "disk", {0: pattern(6 * MIB)})
    most = 0
    sinks = [MemorySink(SIZE) for _ in range(8)]

    def watch(_ack: object) -> None:
        nonlocal most
        most = max(most, budget.used)

    def copy(number: int) -> None:
        source = ImageSource(path).open()
        disks = [
            CopyDisk(f"sd{n}", "d-1", SIZE, source, pieces(), lambda n=n: sinks[n], (2 + n % 3) * MIB)  # type: ignore[misc]
            for n in (2 * number, 2 * number + 1)
        ]
        copy_disks(CopySettings("m", 1, 4, memory=budget), disks, watch)
        source.close()

    def pieces() -> list[Range]:
        return [Range(at, min(SIZE, at + MIB), False) for at in range(0, SIZE, MIB)]

    threads = [threading.Thread(target=copy, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert all(bytes(sink.content) == path.read_bytes() for sink in sinks)
    # Each copy has one pack of up to 4 MiB, whatever the others hold.
    assert budget.used == 0 and most <= total + 4 * 4 * MIB


class StalledSink(MemorySink):
    """Takes packs, and answers when it is let."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.let = threading.Event()
        self.paused = False
        self.asked = 0

    def put(self, sequence: int, pack: memoryview) -> Receipt:
        self.asked += 1
        self.let.wait(60)
        return super().put(sequence, pack)


@pytest.mark.parametrize("paused", [True, False])
def test_copies_that_do_not_get_on_stop_no_other(tmp_path: Path, paused: bool) -> None:
    """Paused ones take no memory; slow ones leave room for a pack of each other copy."""
    budget = MemoryBudget(4 * MIB)
    path = image(tmp_path / "disk", {0: pattern(6 * MIB)})
    source = ImageSource(path).open()
    slow = [StalledSink(SIZE) for _ in range(2)]
    quick = MemorySink(SIZE)

    def copy(sink: MemorySink) -> None:
        work = [Range(at, min(SIZE, at + MIB), False) for at in range(0, SIZE, MIB)]
        disk = CopyDisk("sda", "d-1", SIZE, source, work, lambda: sink, 2 * MIB)
        copy_disks(CopySettings("m", 1, 4, memory=budget), [disk], lambda _ack: None)

    threads = [threading.Thread(target=copy, args=(sink,)) for sink in slow]
    for sink in slow:
        sink.paused = paused
    for thread in threads:
        thread.start()
    while not paused and not all(sink.asked for sink in slow):
        time.sleep(0.01)
    copying = threading.Thread(target=copy, args=(quick,), daemon=True)
    copying.start()
    copying.join(30)
    ended, used, asked = not copying.is_alive(), budget.used, [sink.asked for sink in slow]
    for sink in slow:
        sink.paused = False
        sink.let.set()
    for thread in [*threads, copying]:
        thread.join(60)
    source.close()
    assert ended and bytes(quick.content) == path.read_bytes()
    assert not paused or (used, asked) == (0, [0, 0])
    assert all(bytes(sink.content) == path.read_bytes() for sink in slow)
