"""The replicate job: a replication with gateways and archives as its targets."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wavelift.agent.archiving import Archives
from wavelift.agent.limited import LimitedWatch, flow_of
from wavelift.agent.replication import Order, Target, replicate
from wavelift.agent.specs import RepairSpec, ReplicateSpec
from wavelift.agent.state import MigrationState
from wavelift.blocks.compress import FAST_LEVEL, Compression
from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.blocks.limits import Limits
from wavelift.blocks.meter import WireMeter
from wavelift.blocks.sink import Sink, open_sink
from wavelift.service.errors import InvalidRequest, WaveliftError
from wavelift.service.job_context import JobContext
from wavelift.sources.base import Source


class DiskNotFound(WaveliftError):
    default_code = "disk_not_found"
    status = 404


class Replicator:
    """Runs replicate jobs over the agent's sources; one at a time per migration."""

    def __init__(
        self, state: Path, sources: Mapping[str, Source], limits: Limits, connections: int, wire: WireMeter
    ) -> None:
        self.wire = wire
        self._state = state
        self._sources = sources
        self._connections = connections
        self.limits = limits
        self._busy: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def run(self, context: JobContext[ReplicateSpec]) -> dict[str, Any]:
        spec = context.spec
        names = [wanted.disk for wanted in spec.disks]
        if len(set(names)) != len(names):
            raise InvalidRequest("The job names a disk twice.", "Name each disk once.")
        with self.turn(spec.migration, context):
            watch = LimitedWatch(context, self.limits)
            watch.step("opening")
            archives = Archives(context, self.limits, self.wire)
            targets = [self._target(context, archives, index) for index in range(len(spec.disks))]
            order = Order(
                spec.migration,
                spec.generation,
                spec.base,
                targets,
                self._connections,
                # What is kept for good is worth the time that it takes to make it small.
                Compression(FAST_LEVEL) if archives else Compression.AUTO,
            )
            state = MigrationState(self._state, spec.migration)
            archives.forget_swept(state)
            result = archives.ended_with(state) or replicate(self._state, order, watch)
            if archives:
                watch.step("committing")
                result = archives.commit(state, result)
            return result

    def _target(self, context: JobContext[ReplicateSpec], archives: Archives, index: int) -> Target:
        wanted = context.spec.disks[index]
        source = self.find(wanted.disk)
        if not isinstance(wanted.sink, SinkDescriptor):
            return archives.target(wanted.disk, source, wanted.sink.max_pack_bytes)
        sinks = sinks_of(context, index, self.wire, self.limits)
        return Target(wanted.disk, source, wanted.sink.volume, sinks, wanted.sink.max_pack_bytes)

    @contextmanager
    def turn(self, migration: str, context: JobContext[Any]) -> Iterator[None]:
        """For one job that uses the migration's state; waits for the one before."""
        lock = self._busy[migration]
        context.step("waiting")
        while not lock.acquire(timeout=0.2):
            context.check()
        try:
            yield
        finally:
            lock.release()

    def find(self, disk: str) -> Source:
        source = self._sources.get(disk)
        if source is None:
            there = ", ".join(sorted(self._sources)) or "none"
            raise DiskNotFound(
                f"This agent has no disk {disk!r}; it has: {there}.",
                "Correct the manifest, or start the agent with that disk.",
            )
        return source


def sinks_of(
    context: JobContext[ReplicateSpec] | JobContext[RepairSpec], index: int, wire: WireMeter, limits: Limits
) -> Callable[[], Sink]:
    """Opens sinks at the gateway for the disk of that index in the job's spec."""

    def descriptor() -> SinkDescriptor:
        # Asked before each pack: a resubmission of the job renews the token.
        sink = context.spec.disks[index].sink
        assert isinstance(sink, SinkDescriptor), "the kind of a sink is never replaced"
        return sink

    return lambda: open_sink(descriptor, context.stop, meter=wire, flow=flow_of(context, limits))
