"""Hydration: a generation of an archive into a target, by whole packs, newest generation first. Only blocks whose
digest the wanted map names are written, each once; what is durable is journaled, so that a killed one goes on."""

from __future__ import annotations

import errno
import logging
import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Protocol

from wavelift.archive.archive import Archive
from wavelift.archive.layout import Generation, PackList, Row
from wavelift.blocks.copy import changed_runs
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, blocks_of
from wavelift.blocks.errors import PackError
from wavelift.blocks.pack import MAX_RECORD, Codec, PackReader, Record, from_memory
from wavelift.blocks.throttle import Flow, Throttle
from wavelift.hydrate.crew import Crew, asked
from wavelift.hydrate.journal import Pack, Work
from wavelift.stores.base import Corrupted, Denied, NotThere, StoreError
from wavelift.stores.disk_label import DiskMissing

log = logging.getLogger(__name__)

WORKERS = 4
_TABLES_KEPT = 2 * WORKERS

Ranges = list[tuple[int, int]]


class Writer(Protocol):
    """Zeroes may become holes. Both raise OSError, and errors of the target's own."""

    def write(self, offset: int, data: memoryview) -> None: ...

    def zero(self, offset: int, length: int) -> None: ...


class Target(Protocol):
    def writing(self) -> AbstractContextManager[Writer]:
        """For some writes, durable when the block ends well; asked for by several threads."""


class AccessLost(StoreError):
    """The credentials of an archive have expired, or lack a right; what was written is kept."""

    default_code = "archive_denied"
    retryable = True

    def __init__(self, denied: Denied) -> None:
        super().__init__(denied.message, f"{denied.remedy} Submitted again with fresh ones it goes on from here.")


@dataclass(frozen=True)
class Hydrated:
    """`packs` are those of the generations that were looked at; `packs_read` of them were read to their end by this
    attempt and the former ones, which fetched `wire_bytes`. `missing` are the (start, end), in bytes, that no sound
    pack held, and `damaged` the keys of the packs that are missing or damaged, with the disk that is not here."""

    packs: int
    packs_read: int
    wire_bytes: int
    written_bytes: int
    missing: Ranges
    damaged: list[str]

    @property
    def missing_bytes(self) -> int:
        return sum(end - start for start, end in self.missing)


def hydrate(
    archive: Archive,
    chain: Sequence[Generation],
    work: Work,
    target: Target,
    *,
    lane: str = "",
    throttles: Sequence[Throttle] = (),
    workers: int = WORKERS,
    check: Callable[[], None] = lambda: None,
) -> Hydrated:
    """Write what is left of the work from the packs of the chain, newest generation first. Takes the memory of a pack
    for each worker. What is fetched goes through the throttles, in their `lane`.

    Packs that are missing or damaged end nothing: the result says what they cost. `check` is called a few times a
    second and may raise to stop; nothing is written after the return. Raises `AccessLost`, `StoreError`,
    `ArchiveError`, OSError, and as the target does.
    """
    crew = Crew(workers, check)
    bringing = _Bringing(archive, work, target, crew, lambda: Flow(lane, throttles, crew.over))
    packs = 0
    with renewable():
        crew.each(iter(work.left.segments()), lambda: bringing.zeroes)
        for generation in chain:
            if work.left.bytes:
                rows = asked(partial(archive.packs, generation), check)
                packs += len(rows)
                crew.each(_useful(rows, work), bringing.worker)
    missing, damaged = list(work.left.all()), sorted(bringing.damaged)
    return Hydrated(packs, len(work.done), work.wire_bytes, work.written_bytes, missing, damaged)


@contextmanager
def renewable() -> Iterator[None]:
    """Raises `AccessLost` for `Denied`."""
    try:
        yield
    except Denied as error:
        raise AccessLost(error) from error


def _is_lost(error: StoreError) -> bool:
    """Whether it is about this object alone, and stays so: it is not there, damaged, on a disk that is elsewhere or on
    a bad spot of one that is here."""
    bad_spot = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EIO
    return bad_spot or isinstance(error, NotThere | Corrupted | DiskMissing)


@dataclass(frozen=True)
class _Found:
    """A pack that may hold something that is left."""

    pack: Pack
    key: str
    row: Row


def _useful(rows: PackList, work: Work) -> Iterator[_Found]:
    """As they are asked for: what is left by then counts."""
    for number, row in enumerate(rows):
        pack = rows.generation, number
        if pack not in work.done and work.left.any(row.start, row.end):
            yield _Found(pack, rows.key(row), row)


class _Bringing:
    def __init__(self, archive: Archive, work: Work, target: Target, crew: Crew, flow: Callable[[], Flow]) -> None:
        self._archive = archive
        self._work = work
        self._target = target
        self._crew = crew
        self._flow = flow
        self._table = lru_cache(_TABLES_KEPT)(work.wanted.table)
        self.damaged: list[str] = []

    def zeroes(self, segment: int) -> None:
        """Where the map says so; no pack is needed for that."""
        begin = segment * SEGMENT
        found = [
            run
            for first, last, zero in changed_runs(self._table(segment), None)
            if zero
            for run in self._work.left.runs(begin + first * BLOCK, begin + last * BLOCK)
        ]
        if not found:
            return
        with self._crew.writing():
            with self._target.writing() as writer:
                for start, end in found:
                    self._crew.require()
                    writer.zero(start, end - start)
            self._work.note(None, found, 0)

    def worker(self) -> Callable[[_Found], None]:
        # Page-aligned, as writes past the page cache need it.
        flow, scratch = self._flow(), mmap.mmap(-1, MAX_RECORD)
        return lambda found: self._pack(found, flow, scratch)

    def _pack(self, found: _Found, flow: Flow, scratch: mmap.mmap) -> None:
        left = found.row.size
        while left:
            left -= flow.take(left)
        try:
            data = self._archive.bare.get(found.key)
        except StoreError as error:
            if not _is_lost(error):
                raise
            where = f" on {', '.join(error.labels)}" if isinstance(error, DiskMissing) else ""
            self._lost(found.key + where, error.message)
            return
        self._work.fetched(found.row.size)
        with self._crew.writing():
            written: Ranges = []
            whole = True
            with ExitStack() as stack:
                writer: Writer | None = None
                try:
                    # Opened as it is read: not once more as a whole.
                    pack = PackReader(from_memory(memoryview(data)), scratch, self._archive.keys)
                    for record, view in pack.records():
                        self._crew.require()
                        for start, end in self._wanted(record):
                            writer = writer or stack.enter_context(self._target.writing())
                            writer.write(start, view[start - record.offset : end - record.offset])
                            written.append((start, end))
                except PackError as error:
                    # What came before the damage was checked, block by block.
                    whole = False
                    self._lost(found.key, error.message)
            self._work.note(found.pack if whole else None, written, found.row.size)

    def _wanted(self, record: Record) -> Iterator[tuple[int, int]]:
        """What of a record is left to write, and is what the map names."""
        if record.codec is Codec.ZERO or record.offset + record.length > self._work.wanted.size:
            return
        for start, end in self._work.left.runs(record.offset, record.offset + record.length):
            first, count = start % SEGMENT // BLOCK, blocks_of(end - start)
            ours = self._table(start // SEGMENT)[first * DIGEST : (first + count) * DIGEST]
            before = (start - record.offset) // BLOCK * DIGEST
            theirs = record.digests[before : before + count * DIGEST]
            if ours == theirs:
                yield start, end
                continue
            for at in range(count):
                if ours[at * DIGEST : (at + 1) * DIGEST] == theirs[at * DIGEST : (at + 1) * DIGEST]:
                    yield start + at * BLOCK, min(end, start + (at + 1) * BLOCK)

    def _lost(self, key: str, why: str) -> None:
        log.warning("%s of %s is not used: %s", key, self._archive.store.name, why)
        self.damaged.append(key)
