"""What a copy on this machine waits for, and how much of it is under way at a time."""

from __future__ import annotations

from pathlib import Path

from wavelift.archive.archive import Archive
from wavelift.blocks.bandwidth import Bandwidth
from wavelift.blocks.digest import digests
from wavelift.blocks.memory import MemoryBudget
from wavelift.blocks.pace import PacedSink
from wavelift.blocks.pack import PackDisk, PackHeader, PackWriter
from wavelift.blocks.throttle import Flow, Throttle
from wavelift.cli.archive_target import DISK_PACK_BYTES
from wavelift.cli.copy import BUFFERS
from wavelift.stores.directory import DirectoryStore


def pack() -> memoryview:
    writer = PackWriter(bytearray(3 << 20), PackHeader("web", 1, 1, (PackDisk("sda", "d-1", 1 << 20),)))
    view = writer.slot(1 << 20)
    view[:] = b"data" * (len(view) // 4)
    writer.add_data(0, 0, view, digests(view))
    return writer.finish()


def test_a_limit_counts_as_link(tmp_path: Path) -> None:
    whole = pack()
    sink = Archive.create(DirectoryStore(tmp_path), key=None).sink(1)
    limit = Throttle(Bandwidth(limit=len(whole) * 5))
    slow = [PacedSink(sink, Flow("", [limit])).put(number, whole).link_seconds for number in range(20)]
    assert sum(slow) > 0.5


def test_two_packs_of_a_folder_are_under_way_at_a_time() -> None:
    """With room for one, copies used one core."""
    budget = MemoryBudget(BUFFERS)
    lent = [budget.borrow(DISK_PACK_BYTES, lambda: True, "copy") for _ in range(2)]
    assert None not in lent
