"""Archives that a replicate job fills: opened, or made, at its start, and made a generation richer at its end."""

from __future__ import annotations

from functools import partial
from typing import Any

from wavelift.agent.carriers import archive_name
from wavelift.agent.limited import flow_of
from wavelift.agent.replication import Target
from wavelift.agent.specs import ReplicateSpec
from wavelift.agent.state import MigrationState
from wavelift.archive.archive import Archive
from wavelift.archive.commit import commit
from wavelift.archive.descriptor import ArchiveDescriptor
from wavelift.archive.errors import BlocksLost, PacksLost
from wavelift.archive.opening import open_archive
from wavelift.blocks.attempts import attempt_of
from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.blocks.limits import Limits
from wavelift.blocks.meter import WireMeter
from wavelift.blocks.pace import PacedSink
from wavelift.blocks.sink import Sink
from wavelift.service.errors import InvalidRequest
from wavelift.service.job_context import JobContext
from wavelift.sources.base import Source
from wavelift.stores.patience import Patience


class Archives:
    """Of those disks of a job that go to one."""

    def __init__(self, context: JobContext[ReplicateSpec], limits: Limits, wire: WireMeter) -> None:
        """Raises `InvalidRequest`, `ArchiveError`, `StoreError`, OSError."""
        self._context = context
        self._limits = limits
        self._wire = wire
        self._opened: dict[str, Archive] = {}
        for index, wanted in enumerate(context.spec.disks):
            if not isinstance(wanted.sink, SinkDescriptor):
                self._opened[wanted.disk] = open_archive(
                    partial(_descriptor, context, index), create=True, patience=Patience(stop=context.stop)
                )
        if len({archive.id for archive in self._opened.values()}) < len(self._opened):
            raise InvalidRequest("Two disks of the job go to one archive.", "Give each disk an archive of its own.")

    def forget_swept(self, state: MigrationState) -> None:
        """Where packs of the attempt that was begun are no longer there, all of it is to be put again. Raises
        `ArchiveError`, `StoreError`."""
        number = self._context.spec.generation
        begun = state.begun(number)
        if begun is None or begun["kept_from"] is None:
            return
        if any(archive.swept(number) >= attempt_of(begun["kept_from"]) for archive in self._opened.values()):
            state.disown(number)

    def __contains__(self, disk: str) -> bool:
        return disk in self._opened

    def __bool__(self) -> bool:
        return bool(self._opened)

    def target(self, disk: str, source: Source, pack_bytes: int) -> Target:
        archive = self._opened[disk]

        def sink() -> Sink:
            flow = flow_of(self._context, self._limits)
            return PacedSink(archive.sink(self._context.spec.generation), flow, self._wire)

        return Target(disk, source, archive_name(archive.id), sink, pack_bytes)

    def ended_with(self, state: MigrationState) -> dict[str, Any] | None:
        """The result of an attempt that was cut short when all was copied: what archives got by then may be a
        generation already, and another moment of the source would be another content."""
        spec = self._context.spec
        if len(self._opened) < len(spec.disks):
            return None
        return state.ended_with(
            spec.generation, {disk: archive_name(archive.id) for disk, archive in self._opened.items()}
        )

    def commit(self, state: MigrationState, result: dict[str, Any]) -> dict[str, Any]:
        """The result with what each archive got. Done again it changes nothing. Raises `ArchiveError`, `MapError`,
        `StoreError`, `NotFound`; after `PacksLost` and `BlocksLost` the next attempt puts everything again."""
        try:
            return {**result, "disks": [self._committed(state, result["base_used"], disk) for disk in result["disks"]]}
        except (PacksLost, BlocksLost):
            state.disown(self._context.spec.generation)
            raise

    def _committed(self, state: MigrationState, base: int | None, about: dict[str, Any]) -> dict[str, Any]:
        disk, spec = str(about["disk"]), self._context.spec
        if disk not in self._opened:
            return about
        made = commit(
            self._opened[disk],
            spec.migration,
            spec.generation,
            base,
            None if base is None else state.map(disk, base).root.hex(),
            state.map(disk, spec.generation),
            about["consistency"],
            state.kept_from(spec.generation),
            self._context.stop,
        )
        kept = {"generation": made.generation, "packs": made.packs, "pack_bytes": made.pack_bytes}
        return {**about, "archive": kept}


def _descriptor(context: JobContext[ReplicateSpec], index: int) -> ArchiveDescriptor:
    """As it is now: a resubmission of the job renews credentials."""
    sink = context.spec.disks[index].sink
    assert not isinstance(sink, SinkDescriptor), "the kind of a sink is never replaced"
    return sink
