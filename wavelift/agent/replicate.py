"""The replicate job: what the API takes, and its replication with the gateway as the target."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from wavelift.agent.limited import LimitedWatch, flow_of
from wavelift.agent.replication import Order, Target, replicate
from wavelift.blocks.bandwidth import AnyBandwidth
from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.blocks.limits import Limits
from wavelift.blocks.meter import WireMeter
from wavelift.blocks.sink import Sink, open_sink
from wavelift.service.errors import InvalidRequest, WaveliftError
from wavelift.service.job_context import JobContext
from wavelift.sources.base import Source

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
    bandwidth: AnyBandwidth | None = None
    disks: list[ReplicateDisk] = Field(min_length=1, max_length=64)


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
            targets = [
                Target(
                    wanted.disk,
                    self.find(wanted.disk),
                    wanted.sink.volume,
                    sinks_of(context, index, self.wire, self.limits),
                    wanted.sink.max_pack_bytes,
                )
                for index, wanted in enumerate(spec.disks)
            ]
            order = Order(spec.migration, spec.generation, spec.base, targets, self._connections)
            return replicate(self._state, order, LimitedWatch(context, self.limits))

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


def sinks_of(context: JobContext[Any], index: int, wire: WireMeter, limits: Limits) -> Callable[[], Sink]:
    """Opens sinks for the disk of that index in the job's spec."""
    # Asked before each pack: a resubmission of the job renews the token.
    return lambda: open_sink(
        lambda: context.spec.disks[index].sink, context.stop, meter=wire, flow=flow_of(context, limits)
    )
