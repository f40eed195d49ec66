"""What is to be copied, what of it is done, and what the workers of one copy have in common."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from wavelift.blocks.blockmap import DiskMap
from wavelift.blocks.compress import Compression, LinkGauge
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, ZERO_DIGEST
from wavelift.blocks.memory import SHARED, MemoryBudget
from wavelift.blocks.moved import Elsewhere
from wavelift.blocks.plan import Range
from wavelift.blocks.sink import Sink

QUEUE_AHEAD = 16
TABLES_KEPT = 4


class Readable(Protocol):
    def readinto(self, offset: int, view: memoryview) -> None: ...


@dataclass
class CopyDisk:
    """One disk of a copy. `base` is what the volume holds; None means unknown, so zeroes are sent too."""

    disk: str
    volume: str
    size: int
    source: Readable
    work: Iterable[Range]
    open_sink: Callable[[], Sink]
    pack_bytes: int
    base: DiskMap | None = None


@dataclass
class Ack:
    """What became durable at the target with one pack (or needed none), with its digests."""

    disk: int
    sequence: int | None
    ranges: list[tuple[int, int]] = field(default_factory=list)
    tables: list[tuple[int, bytes]] = field(default_factory=list)
    sent_bytes: int = 0
    wire_bytes: int = 0
    changed_bytes: int = 0
    moved_bytes: int = 0

    @property
    def covered(self) -> int:
        return sum(end - start for start, end in self.ranges)


@dataclass(frozen=True)
class CopySettings:
    migration: str
    generation: int
    workers: int = 4
    compression: Compression = Compression.AUTO
    first_sequence: int = 1
    memory: MemoryBudget = SHARED


class Job:
    """One copy, seen by its workers."""

    def __init__(self, settings: CopySettings, disks: list[CopyDisk], acknowledge: Callable[[Ack], None]) -> None:
        self.settings = settings
        self.disks = disks
        self.acknowledge = acknowledge
        self.queue: queue.Queue[tuple[int, Range] | None] = queue.Queue(QUEUE_AHEAD)
        self.failed = threading.Event()
        self.errors: list[BaseException] = []
        self.gauge = LinkGauge()
        self.elsewhere = Elsewhere([(disk.base, disk.size) for disk in disks], settings.memory, self.failed)
        self._lock = threading.Lock()
        self._sequence = settings.first_sequence
        self._tables: dict[tuple[int, int], bytes] = {}

    def fail(self, error: BaseException) -> None:
        self.errors.append(error)
        self.failed.set()

    def next_sequence(self) -> int:
        with self._lock:
            self._sequence += 1
            return self._sequence - 1

    def base_is_zero(self, disk: int, start: int) -> bool:
        """Whether the base has nothing but zeroes in the segment of byte `start`."""
        base = self.disks[disk].base
        return base is not None and base.segment(start // SEGMENT) == ZERO_DIGEST

    def base_digests(self, disk: int, start: int, end: int) -> bytes | None:
        base = self.disks[disk].base
        if base is None:
            return None
        segment = start // SEGMENT
        with self._lock:
            table = self._tables.get((disk, segment))
            if table is None:
                if len(self._tables) >= TABLES_KEPT:
                    self._tables.pop(next(iter(self._tables)))
                table = self._tables[(disk, segment)] = base.table(segment)
        first = (start - segment * SEGMENT) // BLOCK
        return table[first * DIGEST : first * DIGEST + -(-(end - start) // BLOCK) * DIGEST]
