"""One pack into one volume: every block checked, then written; durable before the answer."""

from __future__ import annotations

import mmap
import time
from dataclasses import dataclass
from typing import Protocol

from wavelift.blocks.errors import BlocksNotThere
from wavelift.blocks.pack import PackReader
from wavelift.gateway.volumes import Volumes
from wavelift.service.errors import InvalidRequest
from wavelift.service.tokens import Claims


class Body(Protocol):
    """A request body that knows how much of it was read, in bytes, and how long that was waited for."""

    @property
    def taken(self) -> int: ...

    @property
    def waited_seconds(self) -> float: ...

    def readinto(self, view: memoryview) -> int: ...


@dataclass(frozen=True)
class Target:
    volume: str
    generation: int
    sequence: int


def ingest(volumes: Volumes, claims: Claims, target: Target, body: Body, scratch: mmap.mmap) -> dict[str, int | float]:
    """Check, write, make durable. A pack refused midway has only written blocks that were proven.

    Raises `ForbiddenRequest`, `InvalidRequest`, `VolumeNotAttached`, `VolumeBusy`, `StaleGeneration`,
    `PackError`, `VolumeTooSmall`, `BlocksNotThere`, OSError.
    """
    claims.require_scope("write")
    claims.require_volume(target.volume)
    began = time.monotonic()
    reader = PackReader(body.readinto, scratch, copies=True)
    header = reader.header
    claims.require_migration(header.migration)
    named = [disk.volume for disk in header.disks]
    if named != [target.volume] or (header.generation, header.sequence) != (target.generation, target.sequence):
        raise InvalidRequest(
            f"The pack is number {header.sequence} of generation {header.generation} for {', '.join(named)}, "
            f"but was sent to number {target.sequence} of generation {target.generation} of {target.volume}.",
            "Send it where its header says.",
        )
    with (
        volumes.turns.writing(target.volume, header.migration, header.generation, header.sequence) as turn,
        volumes.writing(target.volume) as writer,
    ):
        written = writer.take(reader, turn)
    if written.missing:
        raise BlocksNotThere(target.volume, written.missing)
    # So that the sender can tell a slow link, where compressing helps, from a slow volume.
    busy = time.monotonic() - began - body.waited_seconds
    return {"blocks": written.blocks, "bytes": written.bytes, "wire_bytes": body.taken, "busy_seconds": round(busy, 6)}
