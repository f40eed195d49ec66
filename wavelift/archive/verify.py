"""Whether a generation can be restored: every object of it, and of what it builds on, is read whole and proven; or, of
what was proven before, looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, takewhile

from blake3 import blake3

from wavelift.archive.archive import Archive
from wavelift.archive.errors import Damaged
from wavelift.archive.held import Held
from wavelift.archive.layout import Generation, PackList, Row, packs_prefix, table_key
from wavelift.blocks.blockmap import DiskMap, segments_of
from wavelift.blocks.digest import SEGMENT
from wavelift.blocks.errors import MapError, PackError
from wavelift.blocks.pack import PackReader, Record, from_memory
from wavelift.blocks.plan import Intervals
from wavelift.stores.base import Corrupted, NotThere

WORKERS = 2
Ranges = list[tuple[int, int]]


@dataclass(frozen=True)
class Flaw:
    """An object that is missing or damaged, by its key, and why it is no good."""

    key: str
    why: str


@dataclass(frozen=True)
class Verdict:
    """`packs` of the generations `read`, newest first, were read, of `bytes` together. `lost` are the (start, end) of
    the disk, in bytes, that cannot be restored from here; `elsewhere` is the (generation, root) that the last of the
    chain builds on and that does not lie here, so that only what flaws take away is known to be lost."""

    generation: Generation
    read: Sequence[int]
    packs: int
    bytes: int
    flaws: list[Flaw]
    lost: Ranges
    elsewhere: tuple[int, str | None] | None

    @property
    def restorable(self) -> bool:
        """From here alone."""
        return not self.lost and self.elsewhere is None


def verify(
    archive: Archive,
    number: int,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    proven: str | None = None,
) -> Verdict:
    """Read what a generation is made of, newest first. `progress` gets bytes of packs, done and in all; `check` may
    raise to stop. Takes the memory of a pack for each of its workers.

    `proven` is the root, in hex, of an earlier generation that was found whole: where the archive has it, its blocks
    count as held. Of its packs, and of those of what it builds on, it is only looked whether they are all there; if
    not, all are read.

    Raises `NoGeneration`, `Damaged` for records, indexes and lists, without which nothing can be told, and `StoreError`
    for a store that does not answer: that is no verdict.
    """
    chain = list(archive.chain(number))
    reading = _Reading(archive, archive.map(chain[0]), check)
    reading.tables()
    added = list(takewhile(lambda each: each is chain[0] or each.root != proven, chain))
    before = chain[len(added) :]
    if not (before and all(_stands(archive, each, check) for each in before) and reading.builds_on(before[0])):
        added = chain
    lists = [(generation, archive.packs(generation)) for generation in added]
    total = sum(row.size for _, rows in lists for row in rows)
    packs = done = 0
    with ThreadPoolExecutor(WORKERS) as pool:
        for generation, row, proof in _proven(pool, archive, lists, check):
            reading.take(generation, row, proof)
            packs, done = packs + 1, done + row.size
            progress(done, total)
    oldest = chain[-1]
    elsewhere = None if oldest.base is None else (oldest.base, oldest.base_root)
    all_here = elsewhere is None or added is not chain
    read = [generation.generation for generation in added]
    return Verdict(chain[0], read, packs, done, reading.flaws, reading.lost(all_here), elsewhere)


def _stands(archive: Archive, generation: Generation, check: Callable[[], None]) -> bool:
    """Whether its packs are all there, by the store's list, which has the order of their names as theirs has."""
    rows = iter(archive.packs(generation))
    wanted = next(rows, None)
    for entry in archive.bare.list(packs_prefix(generation.generation)):
        check()
        if wanted is not None and (entry.key, entry.size) == (wanted.key(generation.generation), wanted.size):
            wanted = next(rows, None)
    return wanted is None


Proof = Flaw | list[Record]


def _proven(
    pool: ThreadPoolExecutor,
    archive: Archive,
    lists: list[tuple[Generation, PackList]],
    check: Callable[[], None],
) -> Iterator[tuple[Generation, Row, Proof]]:
    """A few packs ahead of who takes them."""
    each = ((generation, row) for generation, rows in lists for row in rows)
    while few := list(islice(each, 4 * WORKERS)):
        for (generation, row), proof in zip(few, pool.map(lambda one: _prove(archive, *one), few), strict=True):
            check()
            yield generation, row, proof


def _prove(archive: Archive, generation: Generation, row: Row) -> Proof:
    key = row.key(generation.generation)
    try:
        data = archive.bare.get(key, 0, row.size + 1)
        if len(data) != row.size or blake3(data).digest() != row.digest:
            return Flaw(key, f"its {len(data)} bytes are not the {row.size} that were put")
        reader = PackReader(from_memory(memoryview(data)), keys=archive.keys)
        header = reader.header
        if (header.generation, header.sequence) != (generation.generation, row.sequence):
            return Flaw(key, f"it is pack {header.sequence} of generation {header.generation}")
        if [disk.disk for disk in header.disks] != [generation.disk]:
            return Flaw(key, f"it is of disk {header.disks[0].disk}")
        return [record for record, _ in reader.records()]
    except NotThere:
        return Flaw(key, "it is missing")
    except (Corrupted, PackError) as error:
        return Flaw(key, error.message)


class _Reading:
    def __init__(self, archive: Archive, wanted: DiskMap, check: Callable[[], None]) -> None:
        self.flaws: list[Flaw] = []
        self._archive = archive
        self._map = wanted
        self._check = check
        self._held = Held(wanted)
        # Segments whose table is no good, and what flawed packs spoke of.
        self._unknown: set[int] = set()
        self._spans: Ranges = []

    def tables(self) -> None:
        for segment in range(segments_of(self._map.size)):
            self._check()
            try:
                self._map.table(segment)
            except (MapError, Damaged, Corrupted) as error:
                self.flaws.append(Flaw(table_key(self._map.segment(segment).hex()), error.message))
                self._unknown.add(segment)

    def builds_on(self, base: Generation) -> bool:
        """Take what a generation holds for held. False where its map is no good any more: then nothing is."""
        held = Held(self._map)
        try:
            before = self._archive.map(base)
            for segment in range(min(segments_of(before.size), segments_of(self._map.size))):
                self._check()
                if segment not in self._unknown:
                    held.agree(segment, before)
        except (MapError, Damaged, Corrupted):
            return False
        self._held = held
        return True

    def take(self, generation: Generation, row: Row, proof: Proof) -> None:
        if isinstance(proof, Flaw):
            self.flaws.append(proof)
            self._spans.append((row.start, min(row.end, self._map.size)))
            return
        for record in proof:
            if record.offset // SEGMENT not in self._unknown:
                self._held.note(record)

    def lost(self, all_here: bool) -> Ranges:
        found: Ranges = []
        for segment in range(segments_of(self._map.size)):
            if segment in self._unknown:
                found.append((segment * SEGMENT, min(self._map.size, (segment + 1) * SEGMENT)))
            else:
                lacking = self._held.lacking(segment)
                found += lacking if all_here else self._flawed(lacking)
        return list(Intervals(found))

    def _flawed(self, lacking: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        for start, end in lacking:
            for begin, stop in self._spans:
                if max(start, begin) < min(end, stop):
                    yield max(start, begin), min(end, stop)
