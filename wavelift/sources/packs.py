"""A generation in a folder of packs, as a disk. Where its blocks lie is found segment by segment, in the headers of the
packs that speak of it: newest first, and only what is what the block map names counts."""

from __future__ import annotations

import os
import threading
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import zstandard

from wavelift.blocks.copy import changed_runs
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, ZERO_DIGEST, digests
from wavelift.blocks.errors import PackError
from wavelift.blocks.pack import MAX_RECORD, Codec
from wavelift.blocks.packfolder import FolderError, Generation, KeptDisk, PackFolder, PackList
from wavelift.blocks.packheld import BlocksLost
from wavelift.blocks.packscan import Place, scan_file
from wavelift.sources.base import Consistency, Extent

_SEGMENTS_KEPT = 2
_NOWHERE = -1


class PackFolderSource:
    """`generation` and `disk` may be left out where there is no choice: the newest, and the only one."""

    kind = "packs"

    def __init__(self, folder: Path, generation: int | None = None, disk: str | None = None) -> None:
        self.folder = folder
        self.generation = generation
        self.disk = disk

    def open(self, token: str | None = None) -> PackFolderPointInTime:
        """Raises `FolderError`, `MapError`: not there, damaged, or not said which disk."""
        folder = PackFolder(self.folder)
        numbers = folder.generations()
        number = self.generation if self.generation is not None else numbers[-1] if numbers else 0
        generation = folder.load(number)
        disks = [disk for disk in generation.disks if self.disk in (None, disk.disk)]
        if len(disks) != 1:
            names = ", ".join(disk.disk for disk in generation.disks)
            raise FolderError(f"Generation {number} in {self.folder} has the disks {names}.", "Name one of them.")
        return PackFolderPointInTime(folder, generation, disks[0])


@dataclass
class _Segment:
    """Where the blocks of a segment lie: for each the number of a pack's record, or -1."""

    table: bytes
    where: array[int]
    places: list[tuple[Path, Place]] = field(default_factory=list)
    bad: list[Path] = field(default_factory=list)


class PackFolderPointInTime:
    def __init__(self, folder: PackFolder, generation: Generation, disk: KeptDisk) -> None:
        self._map = folder.map(generation, disk)
        self.size = disk.size
        self.token = f"packs:{disk.root}"
        self.consistency = Consistency(disk.consistency)
        self._packs = [_Packs(folder, each, disk.disk) for each in _chain(folder, generation)]
        self._segments: dict[int, _Segment] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

    def extents(self) -> Iterator[Extent]:
        for number in range(-(-self.size // SEGMENT)):
            begin, end = number * SEGMENT, min(self.size, (number + 1) * SEGMENT)
            if self._map.segment(number) == ZERO_DIGEST:
                yield Extent(begin, end - begin, dirty=True, zero=True)
                continue
            for first, last, zero in changed_runs(self._map.table(number), None):
                start, stop = begin + first * BLOCK, min(end, begin + last * BLOCK)
                yield Extent(start, stop - start, dirty=True, zero=zero)

    def readinto(self, offset: int, view: memoryview) -> None:
        """From any offset. Raises `BlocksLost`."""
        at, end = offset, offset + len(view)
        while at < end:
            found = self._segment(at // SEGMENT)
            block = at % SEGMENT // BLOCK
            start = at // BLOCK * BLOCK
            if found.table[block * DIGEST : (block + 1) * DIGEST] == ZERO_DIGEST:
                stop = min(end, start + BLOCK)
                view[at - offset : stop - offset] = bytes(stop - at)
            else:
                stop, data = self._record(found, start, end)
                stop = min(stop, end)
                view[at - offset : stop - offset] = data[at - start : stop - start]
            at = stop

    def close(self) -> None:
        self._segments.clear()

    def _record(self, found: _Segment, start: int, end: int) -> tuple[int, memoryview]:
        """The checked data from a block's `start` on, as far as one record has it up to `end`, and where it ends."""
        first = start % SEGMENT // BLOCK
        number, last = found.where[first], first + 1
        wanted = -(-(min(end, start // SEGMENT * SEGMENT + SEGMENT) - start) // BLOCK) + first
        while last < min(wanted, len(found.where)) and found.where[last] == number:
            last += 1
        stop = min(self.size, start + (last - first) * BLOCK)
        if number == _NOWHERE:
            raise BlocksLost(self._map.disk, [(start, stop)], found.bad)
        path, place = found.places[number]
        data = self._payload(path, place)[start - place.record.offset : stop - place.record.offset]
        if len(data) != stop - start or digests(data) != found.table[first * DIGEST : last * DIGEST]:
            raise BlocksLost(self._map.disk, [(start, stop)], [path])
        return stop, data

    def _payload(self, path: Path, place: Place) -> memoryview:
        """A record's data, shorter where it is damaged. The last one is kept for each thread: reads seldom end where
        records do."""
        kept = getattr(self._local, "kept", None)
        if kept is None or kept[0] != (path, place.at):
            record = place.record
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    data = os.pread(fd, record.payload, place.at)
                finally:
                    os.close(fd)
                if record.codec is Codec.ZSTD:
                    # Looked at first: the decompressor would allocate whatever the frame says.
                    frame = zstandard.get_frame_parameters(data[:18])
                    fits = frame.content_size == record.length and frame.window_size <= MAX_RECORD
                    data = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False) if fits else b""
            except (OSError, zstandard.ZstdError):
                data = b""
            kept = self._local.kept = ((path, place.at), memoryview(data))
        return kept[1]

    def _segment(self, number: int) -> _Segment:
        with self._lock:
            found = self._segments.get(number)
            if found is None:
                if len(self._segments) >= _SEGMENTS_KEPT:
                    self._segments.pop(next(iter(self._segments)))
                found = self._segments[number] = self._locate(number)
            return found

    def _locate(self, number: int) -> _Segment:
        table = self._map.table(number)
        found = _Segment(table, array("i", [_NOWHERE]) * (len(table) // DIGEST))
        left = sum(1 for at in range(0, len(table), DIGEST) if table[at : at + DIGEST] != ZERO_DIGEST)
        for packs in self._packs:
            for path in packs.of(number):
                if not left:
                    return found
                try:
                    _, places = scan_file(path)
                except (OSError, PackError):
                    found.bad.append(path)
                    continue
                for place in places:
                    left -= _place(found, number, path, place)
        return found


class _Packs:
    """The packs of one generation that speak of one disk, by segment."""

    def __init__(self, folder: PackFolder, generation: Generation, disk: str) -> None:
        self._list: PackList = folder.packs(generation)
        self._by_segment: defaultdict[int, array[int]] = defaultdict(lambda: array("I"))
        names = [each.disk for each in generation.disks]
        for row, (index, start, end) in enumerate(self._list):
            if names[index] == disk:
                for segment in range(start // SEGMENT, (end - 1) // SEGMENT + 1):
                    self._by_segment[segment].append(row)

    def of(self, segment: int) -> Iterator[Path]:
        return (self._list.path(row) for row in self._by_segment.get(segment, ()))


def _chain(folder: PackFolder, generation: Generation) -> Iterator[Generation]:
    """It and what it builds on, newest first."""
    yield generation
    while generation.base is not None:
        if generation.base >= generation.generation:
            raise FolderError(f"Generation {generation.generation} builds on a later one.", "Copy in full.")
        generation = folder.load(generation.base)
        yield generation


def _place(found: _Segment, segment: int, path: Path, place: Place) -> int:
    """Note the record for the blocks that are what the map names and lie nowhere yet; how many there are."""
    record = place.record
    first = (record.offset - segment * SEGMENT) // BLOCK
    noted = 0
    for at in range(len(record.digests) // DIGEST):
        block = first + at
        if not 0 <= block < len(found.where) or found.where[block] != _NOWHERE:
            continue
        if record.digests[at * DIGEST : (at + 1) * DIGEST] == found.table[block * DIGEST : (block + 1) * DIGEST]:
            found.where[block] = len(found.places)
            noted += 1
    if noted:
        found.places.append((path, place))
    return noted
