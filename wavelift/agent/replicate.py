"""The replicate job: read the disks, send what the volumes lack, and name what they now hold."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from wavelift.agent.journal import Journal
from wavelift.agent.state import MigrationState
from wavelift.agent.tracker import dirty, disproof, noting_zeroes, take_over
from wavelift.blocks.blockmap import DiskMap, WorkTable, generation_root
from wavelift.blocks.copy import CopyDisk, CopySettings, copy_disks
from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.blocks.errors import MapError
from wavelift.blocks.plan import ranges
from wavelift.blocks.sink import open_sink
from wavelift.service.errors import InvalidRequest, WaveliftError
from wavelift.service.runner import JobContext
from wavelift.sources.base import PointInTime, Source
from wavelift.sources.together import Tracked, open_all

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
Name = Annotated[str, Field(pattern=NAME)]


class ReplicateDisk(BaseModel):
    model_config = ConfigDict(extra="forbid")

    disk: Name
    sink: SinkDescriptor


class ReplicateSpec(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["replicate"]
    migration: Name
    generation: int = Field(ge=1)
    base: int | None = Field(default=None, ge=1)
    disks: list[ReplicateDisk] = Field(min_length=1, max_length=64)


class DiskNotFound(WaveliftError):
    default_code = "disk_not_found"
    status = 404


class Replicator:
    """Runs replicate jobs over the agent's sources; one at a time per migration."""

    def __init__(self, state: Path, sources: Mapping[str, Source], connections: int = 4) -> None:
        self._state = state
        self._sources = sources
        self._connections = connections
        self._busy: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def run(self, context: JobContext[ReplicateSpec]) -> dict[str, Any]:
        spec = context.spec
        lock = self._busy[spec.migration]
        context.step("waiting")
        while not lock.acquire(timeout=0.2):
            context.check()
        try:
            with ExitStack() as stack:
                replication = _Replication(context, spec, self._state, self._connections)
                context.step("opening")
                tokens = replication.base_tokens()
                wanted = [(self._find(disk.disk), tokens.get(disk.disk)) for disk in spec.disks]
                return replication.run(open_all(stack, wanted), stack)
        finally:
            lock.release()

    def _find(self, disk: str) -> Source:
        source = self._sources.get(disk)
        if source is None:
            there = ", ".join(sorted(self._sources)) or "none"
            raise DiskNotFound(
                f"This agent has no disk {disk!r}; it has: {there}.",
                "Correct the manifest, or start the agent with that disk.",
            )
        return source


class _Replication:
    def __init__(self, context: JobContext[ReplicateSpec], spec: ReplicateSpec, root: Path, connections: int) -> None:
        self._context = context
        self._spec = spec
        self._connections = connections
        self._state = MigrationState(root, spec.migration)
        self._notes: list[str] = []
        self._fresh = False
        # The volumes may hold another content of what changed since the base: all of it is sent, compared or not.
        self._unsure = False
        self._tracked = False
        names = [wanted.disk for wanted in spec.disks]
        if len(set(names)) != len(names):
            raise InvalidRequest("The job names a disk twice.", "Name each disk once.")

    def base_tokens(self) -> Mapping[str, str]:
        """What names the base's moments to the sources."""
        committed = self._state.committed()
        return {} if committed is None or committed.generation != self._spec.base else committed.tokens

    def run(self, sources: list[PointInTime], stack: ExitStack) -> dict[str, Any]:
        spec = self._spec
        work = self._state.work(spec.generation)
        work.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._context.step("planning")
        about: dict[str, Any] = {
            "tokens": [source.token for source in sources],
            "disks": [[wanted.disk, wanted.sink.volume] for wanted in spec.disks],
        }
        for source in sources:
            self._notes += source.notes if isinstance(source, Tracked) else []
        self._tracked = all(isinstance(source, Tracked) and source.tracked for source in sources)
        bases = self._bases(sources, about)
        bases = self._prove_tracker(sources, bases, about)
        tables = [
            WorkTable(work / f"{wanted.disk}.table", source.size)
            for wanted, source in zip(spec.disks, sources, strict=True)
        ]
        for table in tables:
            stack.callback(table.close)
        if self._tracked:
            for table, base in zip(tables, bases, strict=True):
                assert base is not None
                take_over(table, base, self._context.check)
        journal = Journal(self._state.journal(spec.generation), about, tables, self._fresh)
        try:
            self._copy(sources, bases, tables, journal)
        finally:
            journal.close()
        changed = [
            wanted.disk
            for wanted, source, token in zip(spec.disks, sources, about["tokens"], strict=True)
            if source.token != token
        ]
        if changed:
            # What was sent is of no single moment. The next attempt sees another token and starts afresh.
            raise WaveliftError(
                f"Disk {', '.join(changed)} changed while it was read.",
                "Stop what writes to it, then submit the job again.",
                code="source_changed",
            )
        return self._finish(sources, about["tokens"], bases, tables, journal)

    def _bases(self, sources: list[PointInTime], about: dict[str, Any]) -> list[DiskMap | None]:
        """The base maps, all or none; puts into `about` which base is used."""
        spec = self._spec
        generation = spec.generation
        begun = self._state.begun(generation)
        same = begun is not None and all(begun.get(field) == about[field] for field in ("tokens", "disks"))
        if begun is not None and same:
            about["base"] = begun["base"]
            about["notes"] = begun["notes"]
            # What was done under these very tokens stands, and nothing tells now what it took over.
            self._tracked = False
        elif begun is not None and begun.get("tracked") and self._tracked and begun["base"] == self._usable_base():
            self._notes.append("the source moved on since this generation was begun: what changed is sent again")
            self._restart()
            self._unsure = True
            about["base"] = begun["base"]
        elif begun is not None:
            self._notes.append("the source changed since this generation was begun: everything is sent again")
            self._restart()
            about["base"] = None
        else:
            about["base"] = self._usable_base()
            # Tables that a start cut short left would be taken for digests of zeroes.
            self._state.restart(generation)
        self._notes += about.get("notes", [])
        maps: list[DiskMap | None] = [None] * len(sources)
        if about["base"] is not None:
            try:
                maps = [self._state.maps(wanted.disk).load(about["base"]) for wanted in spec.disks]
                for found in maps:
                    if found is not None:
                        # All of them now: a table that fails midway would fail each attempt.
                        found.require_tables(self._context.check)
            except MapError as error:
                self._notes.append(error.message)
                maps = [None] * len(sources)
            fits = all(
                found is not None and found.size == source.size for found, source in zip(maps, sources, strict=True)
            )
            if not fits:
                self._notes.append(f"the block maps of generation {about['base']} cannot be used: full copy")
                about["base"], maps = None, [None] * len(sources)
                self._restart()
        about["notes"] = self._notes
        return maps

    def _prove_tracker(
        self, sources: list[PointInTime], bases: list[DiskMap | None], about: dict[str, Any]
    ) -> list[DiskMap | None]:
        """The bases to use; whether the tracker is believed goes into `about`."""
        if self._tracked and None in bases:
            self._tracked = False
        for wanted, source, base in zip(self._spec.disks, sources, bases, strict=True):
            at = disproof(source, base, self._context.check) if self._tracked and base is not None else None
            if at is not None:
                self._tracked = False
                self._notes.append(
                    f"disk {wanted.disk}: the block at byte {at} differs, and the tracker called it unchanged: "
                    "changes are found by a scan"
                )
        about["tracked"] = self._tracked
        if self._unsure and not self._tracked:
            about["base"] = None
            return [None] * len(bases)
        return bases

    def _restart(self) -> None:
        self._fresh = True
        self._state.restart(self._spec.generation)

    def _usable_base(self) -> int | None:
        spec = self._spec
        if spec.base is None:
            return None
        committed = self._state.committed()
        volumes = {wanted.disk: wanted.sink.volume for wanted in spec.disks}
        others = [number for number in self._state.touched() if number != spec.generation]
        if committed is None or committed.generation != spec.base:
            have = "none" if committed is None else str(committed.generation)
            self._notes.append(f"base generation {spec.base} is not here (committed: {have}): full copy")
        elif any(committed.volumes.get(disk) != volume for disk, volume in volumes.items()):
            self._notes.append(f"base generation {spec.base} is on other volumes: full copy")
        elif others:
            self._notes.append(f"generation {others[-1]} was begun and never committed: full copy")
        else:
            return spec.base
        return None

    def _copy(
        self,
        sources: list[PointInTime],
        bases: list[DiskMap | None],
        tables: list[WorkTable],
        journal: Journal,
    ) -> None:
        context, spec = self._context, self._spec
        total = sum(source.size for source in sources)

        def check() -> None:
            context.check()
            done = sum(tally.done.total for tally in journal.tallies)
            wire = sum(tally.wire_bytes for tally in journal.tallies)
            context.progress(total=total, done=done, wire=wire)

        disks = []
        for index, (wanted, source, base) in enumerate(zip(spec.disks, sources, bases, strict=True)):

            def current(index: int = index) -> SinkDescriptor:
                return context.spec.disks[index].sink

            def extents(source: PointInTime = source) -> Any:
                return ((extent.start, extent.start + extent.length, extent.zero) for extent in source.extents())

            found = dirty(source) if self._tracked else extents()
            done = type(journal.tallies[index].done)(journal.tallies[index].done)
            work = ranges(found, source.size, done)
            disks.append(
                CopyDisk(
                    disk=wanted.disk,
                    volume=wanted.sink.volume,
                    size=source.size,
                    source=source,
                    work=noting_zeroes(work, tables[index]) if self._tracked else work,
                    open_sink=lambda current=current: open_sink(current, context.stop),  # type: ignore[misc]
                    pack_bytes=wanted.sink.max_pack_bytes,
                    base=None if self._unsure else base,
                )
            )
        context.step("copying")
        settings = CopySettings(
            spec.migration, spec.generation, self._connections, first_sequence=journal.next_sequence
        )
        copy_disks(settings, disks, journal.acknowledge, check)

    def _finish(
        self,
        sources: list[PointInTime],
        tokens: list[str],
        bases: list[DiskMap | None],
        tables: list[WorkTable],
        journal: Journal,
    ) -> dict[str, Any]:
        spec = self._spec
        self._context.step("mapping")
        maps = [
            self._state.maps(wanted.disk).freeze(wanted.disk, spec.generation, table)
            for wanted, table in zip(spec.disks, tables, strict=True)
        ]
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
                    "consistency": source.consistency,
                }
                for found, source, tally in zip(maps, sources, journal.tallies, strict=True)
            ],
            "base_used": spec.base if bases[0] is not None else None,
            "tracker": "bitmap" if self._tracked else "scan",
            "notes": self._notes,
        }
        total = sum(source.size for source in sources)
        wire = sum(tally.wire_bytes for tally in journal.tallies)
        self._context.progress(total=total, done=total, wire=wire)
        volumes = {wanted.disk: wanted.sink.volume for wanted in spec.disks}
        named = {wanted.disk: token for wanted, token in zip(spec.disks, tokens, strict=True)}
        self._state.finished(spec.generation, result, volumes, named)
        return result
