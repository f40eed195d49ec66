"""A generation of an archive as a disk. Where its blocks lie is found segment by segment, in the headers of the packs
that speak of it: newest first, and only what is what the block map names counts."""

from __future__ import annotations

import threading
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import zstandard

from wavelift.archive.archive import Archive
from wavelift.archive.errors import ArchiveError, BlocksLost, NoGeneration
from wavelift.archive.layout import Generation, PackList
from wavelift.archive.reading import Windows, scan_object
from wavelift.blocks.copy import changed_runs
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, ZERO_DIGEST, digests
from wavelift.blocks.errors import PackError
from wavelift.blocks.pack import MAX_RECORD, Codec
from wavelift.blocks.packscan import Place
from wavelift.sources.base import Consistency, Extent
from wavelift.stores.base import Corrupted, NotThere

_SEGMENTS_KEPT = 2
_SCANNED_AT_ONCE = 8
_NOWHERE = -1


class BaseElsewhere(ArchiveError):
    """A generation builds on another, `base` with the root `root` in hex, that does not lie in its archive."""

    default_code = "base_elsewhere"

    def __init__(self, place: str, generation: int, base: int, root: str | None) -> None:
        self.place, self.generation, self.base, self.root = place, generation, base, root
        super().__init__(
            f"Generation {generation} of {place} builds on generation {base} with the root {root}, which is not there.",
            "Restore that one first, from where it lies; or bring it into the archive.",
        )


class ArchiveSource:
    """`generation` may be left out: the newest."""

    kind = "packs"

    def __init__(self, archive: Callable[[], Archive], generation: int | None = None) -> None:
        self._archive = archive
        self._generation = generation

    def open(self, token: str | None = None) -> ArchivePointInTime:
        """Raises `ArchiveError` and its kinds, `StoreError`: not there, damaged, sealed with another key."""
        archive = self._archive()
        number = self._generation
        if number is None:
            number = max(archive.generations(), default=0)
            if not number:
                raise NoGeneration(archive.name, number, [])
        chain = list(archive.chain(number))
        if chain[-1].base is not None:
            raise BaseElsewhere(archive.name, chain[-1].generation, chain[-1].base, chain[-1].base_root)
        return ArchivePointInTime(archive, chain)


@dataclass
class _Segment:
    """Where the blocks of a segment lie: for each the number of a pack's record, or -1."""

    table: bytes
    where: array[int]
    places: list[tuple[str, Place]] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


class ArchivePointInTime:
    def __init__(self, archive: Archive, chain: list[Generation]) -> None:
        """`chain` has the generation and all that it builds on, newest first."""
        self._archive = archive
        self._map = archive.map(chain[0])
        self.size = chain[0].size
        self.token = f"packs:{chain[0].root}"
        self.consistency = Consistency(chain[0].consistency)
        self._packs = [_Packs(archive.packs(each)) for each in chain]
        self._windows = Windows(archive.store)
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
        """From any offset. Raises `BlocksLost`, `StoreError`."""
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
        key, place = found.places[number]
        data = self._payload(key, place)[start - place.record.offset : stop - place.record.offset]
        if len(data) != stop - start or digests(data) != found.table[first * DIGEST : last * DIGEST]:
            raise BlocksLost(self._map.disk, [(start, stop)], [key])
        return stop, data

    def _payload(self, key: str, place: Place) -> memoryview:
        """A record's data, shorter where it is damaged. The last one is kept for each thread: reads seldom end where
        records do."""
        kept = getattr(self._local, "kept", None)
        if kept is None or kept[0] != (key, place.at):
            record = place.record
            try:
                data = self._windows.read(key, place.at, record.payload)
                if record.codec is Codec.ZSTD:
                    # Looked at first: the decompressor would allocate whatever the frame says.
                    frame = zstandard.get_frame_parameters(data[:18])
                    fits = frame.content_size == record.length and frame.window_size <= MAX_RECORD
                    plain = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False) if fits else b""
                    data = memoryview(plain)
            except (NotThere, Corrupted, zstandard.ZstdError):
                data = memoryview(b"")
            kept = self._local.kept = ((key, place.at), data)
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
        with ThreadPoolExecutor(_SCANNED_AT_ONCE) as pool:
            for packs in self._packs:
                if not left:
                    break
                keys = list(packs.of(number))
                for key, places in zip(keys, pool.map(self._places, keys), strict=True):
                    if places is None:
                        found.bad.append(key)
                        continue
                    for place in places:
                        left -= _place(found, number, key, place)
        return found

    def _places(self, key: str) -> list[Place] | None:
        """None for a pack that is missing or damaged."""
        try:
            return scan_object(self._archive.store, key)[1]
        except (NotThere, Corrupted, PackError):
            return None


class _Packs:
    """The packs of one generation, by the segments that they speak of."""

    def __init__(self, packs: PackList) -> None:
        self._list = packs
        self._by_segment: defaultdict[int, array[int]] = defaultdict(lambda: array("I"))
        for number, row in enumerate(packs):
            for segment in range(row.start // SEGMENT, -(-row.end // SEGMENT)):
                self._by_segment[segment].append(number)

    def of(self, segment: int) -> Iterator[str]:
        return (self._list.key(self._list[number]) for number in self._by_segment.get(segment, ()))


def _place(found: _Segment, segment: int, key: str, place: Place) -> int:
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
        found.places.append((key, place))
    return noted
