"""What the target has acknowledged, on disk before anything relies on it.

An append-only file of checksummed JSON lines: the first names the replication, each other one a batch of
ranges. Digests go to the work tables first, so a line never speaks of digests that are not there. A torn tail
is what a kill leaves, and is dropped. The file is rewritten as one summary line when it has grown.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wavelift.blocks.copy import Ack
from wavelift.blocks.digest import BLOCK, DIGEST
from wavelift.blocks.files import write_durably, write_whole
from wavelift.blocks.lines import encode_line, read_lines
from wavelift.blocks.plan import Intervals
from wavelift.blocks.worktable import WorkTable

__all__ = ["DiskTally", "Journal", "acknowledged", "encode_line", "read_lines"]

VERSION = 2
COMPACT_AFTER_LINES = 4096
# Acknowledged and not yet in here: what is sent again, beside the packs under way, when the agent is killed now.
UNDURABLE = 8


@dataclass
class DiskTally:
    """What is done of one disk. Sizes in bytes."""

    done: Intervals = field(default_factory=Intervals)
    sent_bytes: int = 0
    wire_bytes: int = 0
    changed_bytes: int = 0
    read_bytes: int = 0
    moved_bytes: int = 0

    def add(self, line: dict[str, Any]) -> None:
        for start, end in line["ranges"]:
            self.done.add(start, end)
        self.sent_bytes += line["sent"]
        self.wire_bytes += line["wire"]
        self.changed_bytes += line["changed"]
        self.read_bytes += line["read"]
        self.moved_bytes += line["moved"]


class Journal:
    """One replication's journal. `begin` says what it is about; `fresh` drops what a former one said, `kept` is what
    still stands of it, all of it without."""

    def __init__(
        self,
        path: Path,
        begin: dict[str, Any],
        tables: Sequence[WorkTable],
        fresh: bool,
        kept: Sequence[Intervals] | None = None,
    ) -> None:
        self._path = path
        self._begin = {"version": VERSION, **begin}
        self._tables = tables
        self.tallies = [DiskTally() for _ in tables]
        self.next_sequence: int = begin.get("first", 1)
        self._lines = 0
        self._fd: int | None = None
        for line in [] if fresh else read_lines(path)[1:]:
            self._apply(line)
        for tally, still in zip(self.tallies, kept or (), strict=False):
            tally.done = still
        # Rewritten at once: that drops a torn tail, which must not stand in front of new lines.
        self._compact()
        self._queue: queue.SimpleQueue[Ack | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(UNDURABLE)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def acknowledge(self, ack: Ack) -> None:
        """Take note; durable soon, in batches. Waits when too much is not. Raises what a former batch failed with."""
        self._room.acquire()
        if self._error is not None:
            self._room.release()
            raise self._error
        self._queue.put(ack)

    def close(self) -> None:
        """Returns once all is durable. Raises what a batch failed with."""
        self._queue.put(None)
        self._thread.join()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        ended = False
        while not ended:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            ended = None in batch
            acks = [ack for ack in batch if ack is not None]
            if acks and self._error is None:
                try:
                    self._write(acks)
                except Exception as error:  # noqa: BLE001  handed to whoever acknowledges next, or closes
                    self._error = error
            if acks:
                self._room.release(len(acks))

    def _write(self, acks: list[Ack]) -> None:
        for ack in acks:
            for offset, table in ack.tables:
                self._tables[ack.disk].write(offset, table)
        for disk in {ack.disk for ack in acks}:
            self._tables[disk].sync()
        lines = [_line_of(ack) for ack in acks]
        assert self._fd is not None
        write_whole(self._fd, b"".join(encode_line(line) for line in lines))
        os.fdatasync(self._fd)
        for line in lines:
            self._apply(line)
        if self._lines > COMPACT_AFTER_LINES:
            self._compact()

    def _apply(self, line: dict[str, Any]) -> None:
        self.tallies[line["disk"]].add(line)
        self.next_sequence = max(self.next_sequence, line["next"])
        self._lines += 1

    def _compact(self) -> None:
        summary = [
            {
                "disk": disk,
                "next": self.next_sequence,
                "ranges": list(tally.done),
                "sent": tally.sent_bytes,
                "wire": tally.wire_bytes,
                "changed": tally.changed_bytes,
                "read": tally.read_bytes,
                "moved": tally.moved_bytes,
            }
            for disk, tally in enumerate(self.tallies)
        ]
        write_durably(self._path, b"".join(encode_line(line) for line in [self._begin, *summary]))
        # The former one is closed only when there is another: after a failure its number may be someone else's.
        former, self._fd = self._fd, os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        if former is not None:
            os.close(former)
        self._lines = 0


def _line_of(ack: Ack) -> dict[str, Any]:
    return {
        "disk": ack.disk,
        "next": (ack.sequence or 0) + 1,
        "ranges": ack.ranges,
        "sent": ack.sent_bytes,
        "wire": ack.wire_bytes,
        "changed": ack.changed_bytes,
        # What was read was digested, in whole blocks; the disk's last one may be shorter.
        "read": min(ack.covered, sum(len(table) for _, table in ack.tables) // DIGEST * BLOCK),
        "moved": ack.moved_bytes,
    }


def acknowledged(path: Path, disks: int) -> list[DiskTally]:
    """What a journal says of each disk."""
    tallies = [DiskTally() for _ in range(disks)]
    for line in read_lines(path)[1:]:
        tallies[line["disk"]].add(line)
    return tallies
