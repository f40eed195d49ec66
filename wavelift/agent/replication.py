"""One generation of some disks: read them, send what the volumes lack, and name what they now hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from wavelift.agent.bases import BaseChoice
from wavelift.agent.doubts import with_doubts
from wavelift.agent.journal import DiskTally, Journal
from wavelift.agent.reread import SourceUnstable, unstable
from wavelift.agent.state import MigrationState
from wavelift.agent.tracker import dirty, noting_zeroes, take_over
from wavelift.blocks.blockmap import DiskMap, generation_root
from wavelift.blocks.compress import Compression
from wavelift.blocks.copy import CopyDisk, CopySettings, copy_disks
from wavelift.blocks.descriptor import DEFAULT_PACK_BYTES
from wavelift.blocks.memory import SHARED, MemoryBudget
from wavelift.blocks.plan import Intervals, Range, ranges
from wavelift.blocks.sink import Sink
from wavelift.blocks.worktable import WorkTable
from wavelift.service.errors import WaveliftError
from wavelift.sources.base import PointInTime, Source
from wavelift.sources.together import Since, open_all


@dataclass(frozen=True)
class Target:
    """A disk and where it goes; each worker opens a sink of its own."""

    disk: str
    source: Source
    volume: str
    open_sink: Callable[[], Sink]
    pack_bytes: int = DEFAULT_PACK_BYTES


@dataclass(frozen=True)
class Order:
    """Generation `generation` of a migration, as an increment on `base` if its block maps are here."""

    migration: str
    generation: int
    base: int | None
    targets: Sequence[Target]
    workers: int = 4
    compression: Compression = Compression.AUTO
    memory: MemoryBudget = SHARED


class Watch(Protocol):
    """Who looks on, and may stop it."""

    def step(self, name: str) -> None: ...

    def check(self) -> None:
        """May raise; what is under way is delivered first."""

    def progress(
        self, *, total: int, done: int, wire: int = 0, read: int = 0, skipped: int = 0, written: int = 0
    ) -> None:
        """In bytes: of the disks, of packs sent, and of what is done what was read, what was not, what was written."""


def replicate(state: Path, order: Order, watch: Watch) -> dict[str, Any]:
    """Roots, sizes and counts of what the volumes hold now, to be verified there and then committed in the state.

    Goes on where a former attempt ended, if the sources' moments are the same. Raises `BlockError` and its kinds,
    `WaveliftError` (`source_changed`), `Conflict` for a generation not above the committed one, `SourceUnstable`,
    OSError.
    """
    with ExitStack() as stack:
        watch.step("opening")
        MigrationState(state, order.migration).require_later(order.generation)
        replication = _Replication(state, order, watch)
        return replication.run(
            open_all(stack, [(target.source, replication.since(target.disk)) for target in order.targets]), stack
        )


class _Replication:
    def __init__(self, state: Path, order: Order, watch: Watch) -> None:
        self._order = order
        self._watch = watch
        self._state = MigrationState(state, order.migration)
        self._volumes = {target.disk: target.volume for target in order.targets}

    def since(self, disk: str) -> Since:
        """What names the moments that the source may know of."""
        committed = self._state.committed()
        based = committed is not None and committed.generation == self._order.base
        return Since(
            base=committed.tokens.get(disk) if committed is not None and based else None,
            begun=self._state.begun_tokens(self._order.generation).get(disk),
            migration=self._order.migration,
        )

    def run(self, sources: list[PointInTime], stack: ExitStack) -> dict[str, Any]:
        order = self._order
        work = self._state.work(order.generation)
        work.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._watch.step("planning")
        choice = BaseChoice(self._state, order.generation, order.base, self._volumes, sources, self._watch.check)
        tables = [
            WorkTable(self._state.table(order.generation, target.disk), source.size)
            for target, source in zip(order.targets, sources, strict=True)
        ]
        for table in tables:
            stack.callback(table.close)
        kept = choice.kept or [Intervals() for _ in tables]
        for table, base, tracked, done in zip(tables, choice.maps, choice.tracked.values(), kept, strict=True):
            if tracked and base is not None:
                take_over(table, base, done, self._watch.check)
        self._state.unfinished(order.generation)
        journal = Journal(self._state.journal(order.generation), choice.about, tables, choice.fresh, choice.kept)
        try:
            self._copy(sources, choice, tables, journal)
        finally:
            journal.close()
        self._require_same(sources, choice)
        return self._finish(sources, choice, tables, journal)

    def _copy(self, sources: list[PointInTime], choice: BaseChoice, tables: list[WorkTable], journal: Journal) -> None:
        order, watch = self._order, self._watch
        total = sum(source.size for source in sources)

        def check() -> None:
            watch.check()
            _report(watch, total, sum(tally.done.total for tally in journal.tallies), journal.tallies)

        disks = [
            CopyDisk(
                disk=target.disk,
                volume=target.volume,
                size=source.size,
                source=source,
                work=_work(source, choice, target.disk, tally.done, table),
                open_sink=target.open_sink,
                pack_bytes=target.pack_bytes,
                base=None if choice.unsure else base,
            )
            for target, source, base, tally, table in zip(
                order.targets, sources, choice.maps, journal.tallies, tables, strict=True
            )
        ]
        watch.step("copying")
        settings = CopySettings(
            order.migration,
            order.generation,
            order.workers,
            order.compression,
            journal.next_sequence,
            order.memory,
        )
        copy_disks(settings, disks, journal.acknowledge, check)

    def _require_same(self, sources: list[PointInTime], choice: BaseChoice) -> None:
        tokens: list[str] = choice.about["tokens"]
        changed = [
            disk for disk, source, token in zip(self._volumes, sources, tokens, strict=True) if source.token != token
        ]
        if changed:
            # What was sent is of no single moment. The next attempt sees another token and starts afresh.
            raise WaveliftError(
                f"Disk {', '.join(changed)} changed while it was read.",
                "Stop what writes to it, then submit the job again.",
                code="source_changed",
            )

    def _read_again(
        self, sources: list[PointInTime], choice: BaseChoice, maps: list[DiskMap], journal: Journal
    ) -> None:
        self._watch.step("reading again")
        for source, found, tally in zip(sources, maps, journal.tallies, strict=True):
            at = unstable(source, found, tally.done, self._watch.check)
            if at is not None:
                self._require_same(sources, choice)
                self._state.disown(self._order.generation)
                raise SourceUnstable(found.disk, at)

    def _finish(
        self, sources: list[PointInTime], choice: BaseChoice, tables: list[WorkTable], journal: Journal
    ) -> dict[str, Any]:
        order = self._order
        self._watch.step("mapping")
        maps = [
            self._state.maps(disk).freeze(disk, order.generation, table)
            for disk, table in zip(self._volumes, tables, strict=True)
        ]
        self._read_again(sources, choice, maps, journal)
        result: dict[str, Any] = {
            "root": generation_root((found.disk, found.root) for found in maps).hex(),
            "disks": [
                {
                    "disk": found.disk,
                    "size": source.size,
                    "root": found.root.hex(),
                    "sent_bytes": tally.sent_bytes,
                    "wire_bytes": tally.wire_bytes,
                    "changed_bytes": tally.changed_bytes,
                    "moved_bytes": tally.moved_bytes,
                    "consistency": source.consistency,
                    "tracker": "bitmap" if choice.tracked[found.disk] else "scan",
                }
                for found, source, tally in zip(maps, sources, journal.tallies, strict=True)
            ],
            "base_used": order.base if choice.maps[0] is not None else None,
            "tracker": "bitmap" if all(choice.tracked.values()) else "scan",
            "notes": choice.notes,
        }
        total = sum(source.size for source in sources)
        _report(self._watch, total, total, journal.tallies)
        tokens = dict(zip(self._volumes, choice.about["tokens"], strict=True))
        self._state.finished(order.generation, result, self._volumes, tokens)
        return result


def _report(watch: Watch, total: int, done: int, tallies: Sequence[DiskTally]) -> None:
    read = sum(tally.read_bytes for tally in tallies)
    watch.progress(
        total=total,
        done=done,
        wire=sum(tally.wire_bytes for tally in tallies),
        read=read,
        skipped=done - read,
        written=sum(tally.changed_bytes for tally in tallies),
    )


def _work(source: PointInTime, choice: BaseChoice, disk: str, done: Intervals, table: WorkTable) -> Iterator[Range]:
    """What is left to do of a disk, as it was when this began."""
    if choice.tracked[disk]:
        changed = with_doubts(dirty(source), choice.doubts.get(disk, ()))
        return noting_zeroes(ranges(changed, source.size, Intervals(done)), table)
    extents = ((extent.start, extent.start + extent.length, extent.zero) for extent in source.extents())
    return ranges(extents, source.size, Intervals(done))
