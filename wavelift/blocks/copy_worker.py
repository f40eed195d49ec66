"""One worker of a copy: from the read to the receipt.

It reads straight to where the data will lie in its pack, digests it there, drops what the base has, and sends the
pack itself: memory is workers x (one pack + one record), whatever the disk's size.
"""

from __future__ import annotations

from collections.abc import Iterator

from wavelift.blocks.compress import Compressor
from wavelift.blocks.copy_job import Ack, Job
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, ZERO_DIGEST, digests
from wavelift.blocks.errors import BlocksNotThere
from wavelift.blocks.memory import LOOK_EVERY_SECONDS
from wavelift.blocks.pack import MAX_RECORD, PackDisk, PackHeader, PackWriter
from wavelift.blocks.plan import Range
from wavelift.blocks.sink import Pausable, Sink

# How much of a disk one pack may speak for before it is acknowledged, however little of it changed: bytes that were
# read, which would have to be read again, and bytes that need not be.
MAX_READ = SEGMENT
MAX_COVERED = 64 * SEGMENT


class Worker:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._compress = Compressor(job.settings.compression, job.gauge)
        self._sinks: dict[int, Sink] = {}
        self._buffer: bytearray | None = None
        self._disk = -1
        self._sequence = 0
        self._pack: PackWriter | None = None
        self._ack = Ack(-1, None)
        self._read = self._covered = 0
        # Offset on the disk and block of the base where a moved run would go on.
        self._goes_on: tuple[int, int] | None = None

    def close(self) -> None:
        self._hand_back()
        for sink in self._sinks.values():
            sink.close()

    def take(self, disk: int, item: Range) -> None:
        if disk != self._disk:
            self.flush()
            self._disk, self._goes_on = disk, None
        step = SEGMENT if item.zero else MAX_RECORD
        for start in range(item.start, item.end, step):
            if self._job.failed.is_set():
                return
            end = min(item.end, start + step)
            if self._pack is not None and self._full(self._pack):
                self.flush()
            pack = self._begin() if self._pack is None else self._pack
            if pack is None:
                return
            if item.zero:
                self._zeroes(pack, start, end)
            else:
                self._data(pack, start, end)
                self._cover(start, end)

    def _full(self, pack: PackWriter) -> bool:
        return not pack.room(MAX_RECORD) or self._read >= MAX_READ or self._covered >= MAX_COVERED

    def flush(self) -> None:
        """Send what there is, then acknowledge it; without a record there is nothing to send."""
        pack, self._pack = self._pack, None
        if pack is None:
            return
        if pack.records:
            self._put(pack)
        self._hand_back()
        self._job.acknowledge(self._ack)

    def _put(self, pack: PackWriter) -> None:
        whole = pack.finish()
        self._ack.sequence = self._sequence
        self._ack.wire_bytes += len(whole)
        try:
            receipt = self._sink().put(self._sequence, whole)
        except BlocksNotThere as refusal:
            if not refusal.missing or not set(refusal.missing) <= set(pack.copies):
                raise
            self._goes_on = None
            for offset, length in refusal.missing:
                self._put_data(offset, length)
            return
        self._job.gauge.sent(len(whole), receipt.link_seconds)

    def _put_data(self, offset: int, length: int) -> None:
        """A pack of its own for what the volume did not hold after all; the former one has been sent."""
        pack = self._new_pack()
        view = pack.slot(length)
        self._job.disks[self._disk].source.readinto(offset, view)
        table = digests(view)
        self._ack.tables.append((offset, table))
        pack.add_data(0, offset, view, table, self._compress(view, self._disk, offset))
        self._ack.moved_bytes -= length
        self._ack.sent_bytes += length
        self._put(pack)

    def _begin(self) -> PackWriter | None:
        """None when the copy ended while this waited for memory."""
        job, sink = self._job, self._sink()
        while isinstance(sink, Pausable) and sink.paused:
            # Without a buffer meanwhile: others could send what it holds.
            if job.failed.wait(LOOK_EVERY_SECONDS):
                return None
        self._buffer = job.settings.memory.borrow(job.disks[self._disk].pack_bytes, job.failed.is_set, job)
        if self._buffer is None:
            return None
        self._ack = Ack(self._disk, None)
        self._read = self._covered = 0
        self._pack = self._new_pack()
        return self._pack

    def _new_pack(self) -> PackWriter:
        disk = self._job.disks[self._disk]
        settings = self._job.settings
        self._sequence = self._job.next_sequence()
        header = PackHeader(
            settings.migration,
            settings.generation,
            self._sequence,
            (PackDisk(disk.disk, disk.volume, disk.size),),
        )
        assert self._buffer is not None
        return PackWriter(self._buffer, header)

    def _hand_back(self) -> None:
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            self._job.settings.memory.hand_back(buffer, self._job)

    def _sink(self) -> Sink:
        if self._disk not in self._sinks:
            self._sinks[self._disk] = self._job.disks[self._disk].open_sink()
        return self._sinks[self._disk]

    def _cover(self, start: int, end: int) -> None:
        covered = self._ack.ranges
        self._covered += end - start
        if covered and covered[-1][1] == start:
            covered[-1] = (covered[-1][0], end)
        else:
            covered.append((start, end))

    def _zeroes(self, pack: PackWriter, start: int, end: int) -> None:
        covered = start
        known_zero = self._job.base_is_zero(self._disk, start)
        base = None if known_zero else self._job.base_digests(self._disk, start, end)
        if base is not None:
            # As many runs as a pack has room for, or more: a segment may have data in every second block.
            for first, last, _ in changed_runs(bytes(len(base)), base):
                begin, stop = start + first * BLOCK, min(end, start + last * BLOCK)
                if not pack.room(0):
                    self._cover(covered, begin)
                    self.flush()
                    fresh = self._begin()
                    if fresh is None:
                        return
                    pack, covered = fresh, begin
                self._zero(pack, begin, stop)
        elif not known_zero:
            self._zero(pack, start, end)
        self._cover(covered, end)

    def _zero(self, pack: PackWriter, begin: int, stop: int) -> None:
        self._ack.changed_bytes += stop - begin
        self._job.elsewhere.wrote(self._disk, begin, stop)
        pack.add_zero(0, begin, stop - begin)

    def _data(self, pack: PackWriter, start: int, end: int) -> None:
        view = pack.slot(end - start)
        self._job.disks[self._disk].source.readinto(start, view)
        table = digests(view)
        self._read += len(view)
        self._ack.tables.append((start, table))
        base = self._job.base_digests(self._disk, start, end)
        if table != base:
            self._write_runs(pack, start, view, table, base, end)

    def _write_runs(
        self, pack: PackWriter, start: int, view: memoryview, table: bytes, base: bytes | None, end: int
    ) -> None:
        """Records for what differs. Each run moves towards the front, so none overwrites a later one."""
        for first, last, zero in changed_runs(table, base):
            begin, stop = start + first * BLOCK, min(end, start + last * BLOCK)
            if zero:
                self._zero(pack, begin, stop)
                continue
            self._ack.changed_bytes += stop - begin
            self._job.elsewhere.wrote(self._disk, begin, stop)
            part, its = view[begin - start : stop - start], table[first * DIGEST : last * DIGEST]
            if base is not None and self._job.gauge.slow and self._sink().takes_copies:
                self._write_pieces(pack, begin, part, its)
            else:
                self._write(pack, begin, part, its)

    def _write(self, pack: PackWriter, offset: int, data: memoryview, table: bytes) -> None:
        pack.add_data(0, offset, data, table, self._compress(data, self._disk, offset))
        self._ack.sent_bytes += len(data)

    def _write_pieces(self, pack: PackWriter, offset: int, data: memoryview, table: bytes) -> None:
        """As much as possible as copies of what the volume has elsewhere."""
        goes_on = self._goes_on[1] if self._goes_on is not None and self._goes_on[0] == offset else None
        for first, last, source in self._job.elsewhere.pieces(self._disk, table, goes_on):
            part = data[first * BLOCK : last * BLOCK]
            begin, its = offset + first * BLOCK, table[first * DIGEST : last * DIGEST]
            if source is None:
                self._write(pack, begin, part, its)
            else:
                pack.add_copy(0, begin, len(part), its, (0, source * BLOCK))
                self._ack.moved_bytes += len(part)
                self._goes_on = (begin + len(part), source + last - first)


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
