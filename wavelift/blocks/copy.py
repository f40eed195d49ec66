"""The copy pipeline: one thread walks the extents, workers own everything from the read to the receipt.

A worker reads straight to where the data will lie in its pack, digests it there, drops what the base has,
and sends the pack itself: memory is workers x (one pack + one record), whatever the disk's size.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from wavelift.blocks.blockmap import DiskMap
from wavelift.blocks.compress import Compression, Compressor, LinkGauge
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, ZERO_DIGEST, digests
from wavelift.blocks.pack import MAX_RECORD, PackDisk, PackHeader, PackWriter
from wavelift.blocks.plan import Range
from wavelift.blocks.sink import Sink

# How much of a disk one pack may speak for before it is acknowledged, however little of it changed.
MAX_COVERED = SEGMENT
QUEUE_AHEAD = 16


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


class _Shared:
    """What the workers of one copy have in common."""

    def __init__(self, settings: CopySettings, disks: list[CopyDisk], acknowledge: Callable[[Ack], None]) -> None:
        self.settings = settings
        self.disks = disks
        self.acknowledge = acknowledge
        self.queue: queue.Queue[tuple[int, Range] | None] = queue.Queue(QUEUE_AHEAD)
        self.failed = threading.Event()
        self.errors: list[BaseException] = []
        self.gauge = LinkGauge()
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

    def base_digests(self, disk: int, start: int, end: int) -> bytes | None:
        base = self.disks[disk].base
        if base is None:
            return None
        segment = start // SEGMENT
        with self._lock:
            table = self._tables.get((disk, segment))
            if table is None:
                if len(self._tables) >= 4:
                    self._tables.pop(next(iter(self._tables)))
                table = self._tables[(disk, segment)] = base.table(segment)
        first = (start - segment * SEGMENT) // BLOCK
        return table[first * DIGEST : first * DIGEST + -(-(end - start) // BLOCK) * DIGEST]


def copy_disks(
    settings: CopySettings,
    disks: list[CopyDisk],
    acknowledge: Callable[[Ack], None],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Copy all ranges of all disks; `acknowledge` is called from several threads, after durability.

    `check` may raise to stop: packs under way are delivered first, so nothing is written after the return.
    Raises the first error of any worker.
    """
    shared = _Shared(settings, disks, acknowledge)
    threads = [
        threading.Thread(target=_work, args=(shared,), name=f"copy-{number}", daemon=True)
        for number in range(settings.workers)
    ]
    for thread in threads:
        thread.start()
    try:
        for index, disk in enumerate(disks):
            for item in disk.work:
                _offer(shared, (index, item), check)
        for _ in threads:
            _offer(shared, None, check)
        while any(thread.is_alive() for thread in threads):
            check()
            for thread in threads:
                thread.join(0.05)
    except BaseException as error:
        shared.fail(error)
        raise
    finally:
        for thread in threads:
            thread.join()
    if shared.errors:
        raise shared.errors[0]


def _offer(shared: _Shared, item: tuple[int, Range] | None, check: Callable[[], None]) -> None:
    while not shared.failed.is_set():
        check()
        try:
            shared.queue.put(item, timeout=0.1)
        except queue.Full:
            continue
        return


def _work(shared: _Shared) -> None:
    worker = _Worker(shared)
    try:
        while not shared.failed.is_set():
            try:
                item = shared.queue.get(timeout=0.1)
            except queue.Empty:
                continue
            if item is None:
                worker.flush()
                return
            worker.take(*item)
    except BaseException as error:  # noqa: BLE001  handed to the caller of copy_disks, which raises it
        shared.fail(error)
    finally:
        worker.close()


class _Worker:
    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._compress = Compressor(shared.settings.compression, shared.gauge)
        self._sinks: dict[int, Sink] = {}
        self._buffer = bytearray(max(disk.pack_bytes for disk in shared.disks))
        self._disk = -1
        self._sequence = 0
        self._pack: PackWriter | None = None
        self._ack = Ack(-1, None)

    def close(self) -> None:
        for sink in self._sinks.values():
            sink.close()

    def take(self, disk: int, item: Range) -> None:
        if disk != self._disk:
            self.flush()
            self._disk = disk
        step = SEGMENT if item.zero else MAX_RECORD
        for start in range(item.start, item.end, step):
            if self._shared.failed.is_set():
                return
            end = min(item.end, start + step)
            if self._pack is not None and (not self._pack.room(MAX_RECORD) or self._ack.covered >= MAX_COVERED):
                self.flush()
            pack = self._begin() if self._pack is None else self._pack
            if item.zero:
                self._zeroes(pack, start, end)
            else:
                self._data(pack, start, end)
            self._cover(start, end)

    def flush(self) -> None:
        """Send what there is, then acknowledge it; without a record there is nothing to send."""
        pack, self._pack = self._pack, None
        if pack is None:
            return
        if pack.records:
            whole = pack.finish()
            began = time.monotonic()
            receipt = self._sink().put(self._sequence, whole)
            self._shared.gauge.sent(len(whole), max(0.0, time.monotonic() - began - receipt.busy_seconds))
            self._ack.sequence = self._sequence
            self._ack.wire_bytes = len(whole)
        self._shared.acknowledge(self._ack)

    def _begin(self) -> PackWriter:
        disk = self._shared.disks[self._disk]
        settings = self._shared.settings
        self._sequence = self._shared.next_sequence()
        header = PackHeader(
            settings.migration,
            settings.generation,
            self._sequence,
            (PackDisk(disk.disk, disk.volume, disk.size),),
        )
        self._ack = Ack(self._disk, None)
        self._pack = PackWriter(memoryview(self._buffer)[: disk.pack_bytes], header)
        return self._pack

    def _sink(self) -> Sink:
        if self._disk not in self._sinks:
            self._sinks[self._disk] = self._shared.disks[self._disk].open_sink()
        return self._sinks[self._disk]

    def _cover(self, start: int, end: int) -> None:
        covered = self._ack.ranges
        if covered and covered[-1][1] == start:
            covered[-1] = (covered[-1][0], end)
        else:
            covered.append((start, end))

    def _zeroes(self, pack: PackWriter, start: int, end: int) -> None:
        base = self._shared.base_digests(self._disk, start, end)
        if base is None:
            pack.add_zero(0, start, end - start)
            self._ack.changed_bytes += end - start
            return
        if base == bytes(len(base)):
            return
        self._write_runs(pack, start, None, bytes(len(base)), base, end)

    def _data(self, pack: PackWriter, start: int, end: int) -> None:
        view = pack.slot(end - start)
        self._shared.disks[self._disk].source.readinto(start, view)
        table = digests(view)
        self._ack.tables.append((start, table))
        base = self._shared.base_digests(self._disk, start, end)
        if table != base:
            self._write_runs(pack, start, view, table, base, end)

    def _write_runs(
        self, pack: PackWriter, start: int, view: memoryview | None, table: bytes, base: bytes | None, end: int
    ) -> None:
        """Records for what differs. Each run moves towards the front, so none overwrites a later one."""
        for first, last, zero in changed_runs(table, base):
            begin, stop = start + first * BLOCK, min(end, start + last * BLOCK)
            self._ack.changed_bytes += stop - begin
            if zero or view is None:
                pack.add_zero(0, begin, stop - begin)
            else:
                part = view[begin - start : stop - start]
                packed = self._compress(part, self._disk, begin)
                pack.add_data(0, begin, part, table[first * DIGEST : last * DIGEST], packed)
                self._ack.sent_bytes += stop - begin


def changed_runs(table: bytes, base: bytes | None) -> Iterator[tuple[int, int, bool]]:
    """(first, last + 1, zero) runs of blocks that differ from the base (all of them without one)."""
    count = len(table) // DIGEST
    begin, kind = 0, ""
    for index in range(count + 1):
        now = ""
        if index < count:
            found = table[index * DIGEST : (index + 1) * DIGEST]
            if base is None or found != base[index * DIGEST : (index + 1) * DIGEST]:
                now = "zero" if found == ZERO_DIGEST else "data"
        if now != kind:
            if kind:
                yield begin, index, kind == "zero"
            begin, kind = index, now
