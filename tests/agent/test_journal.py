"""The journal on a disk that is full or takes little at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wavelift.agent import journal as module
from wavelift.agent.journal import Journal, read_lines
from wavelift.blocks.copy import Ack
from wavelift.blocks.digest import BLOCK
from wavelift.blocks.worktable import WorkTable

SIZE = 64 * BLOCK
Open = Callable[[], Journal]


@pytest.fixture
def open_journal(tmp_path: Path) -> Iterator[Open]:
    table = WorkTable(tmp_path / "table", SIZE)
    yield lambda: Journal(tmp_path / "journal", {"base": None}, [table], fresh=False)
    table.close()


def ack(number: int) -> Ack:
    start = number * 2 * BLOCK
    return Ack(0, number + 1, [(start, start + BLOCK)], [(start, bytes([number]) * 32)], BLOCK, BLOCK, BLOCK)


def test_a_compaction_that_fails_leaves_the_journal_and_closes_nothing_twice(
    tmp_path: Path, open_journal: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal()
    others: list[int] = []

    def full(_path: Path, _data: bytes) -> None:
        # Whoever opens a file now gets the lowest free number.
        others.append(os.open(tmp_path, os.O_RDONLY))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "COMPACT_AFTER_LINES", 0)
    monkeypatch.setattr(module, "write_durably", full)
    journal.acknowledge(ack(3))
    with pytest.raises(OSError, match="No space"):
        journal.close()
    (other,) = others
    os.fstat(other)
    os.close(other)
    monkeypatch.undo()
    again = open_journal()
    again.close()
    assert list(again.tallies[0].done) == [(6 * BLOCK, 7 * BLOCK)] and again.next_sequence == 5


def test_writing_goes_on_after_a_compaction(
    tmp_path: Path, open_journal: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMPACT_AFTER_LINES", 2)
    before = len(list(Path("/proc/self/fd").iterdir()))
    journal = open_journal()
    for number in range(20):
        journal.acknowledge(ack(number))
    journal.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    again = open_journal()
    again.close()
    assert again.tallies[0].done.total == 20 * BLOCK and again.next_sequence == 21


def test_what_the_system_takes_in_parts_is_written_whole(
    tmp_path: Path, open_journal: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, pwrite = os.write, os.pwrite
    journal = open_journal()
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:7]))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, bytes(data)[:5], at))
    journal.acknowledge(ack(3))
    journal.close()
    monkeypatch.undo()
    assert read_lines(tmp_path / "journal")[-1]["ranges"] == [[6 * BLOCK, 7 * BLOCK]]
    assert (tmp_path / "table").read_bytes()[6 * 32 : 7 * 32] == bytes([3]) * 32
