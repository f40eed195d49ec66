"""What an archive, or a volume that was filled from one, turned out not to hold: left to the next generation."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from wavelift.agent.doubts import whole_blocks
from wavelift.agent.specs import Name
from wavelift.agent.state import Committed, MigrationState
from wavelift.blocks.plan import Intervals
from wavelift.service.errors import Conflict, InvalidRequest

Bytes = Annotated[int, Field(ge=0)]


class DoubtedDisk(BaseModel):
    """`ranges` are (offset, length) in bytes."""

    model_config = ConfigDict(extra="forbid")

    disk: Name
    ranges: list[tuple[Bytes, Annotated[int, Field(ge=1)]]] = Field(min_length=1)


class WantedDoubts(BaseModel):
    model_config = ConfigDict(extra="forbid")

    disks: list[DoubtedDisk] = Field(min_length=1, max_length=64)


def note_doubts(state: MigrationState, generation: int, wanted: WantedDoubts) -> Committed:
    """Make the generation the base of the next, which sends the ranges in any case, whatever a tracker or a comparison
    says. Noted again they change nothing.

    Raises `NotFound` for a generation that is not the last one replicated, `InvalidRequest` for a disk or bytes that it
    does not have, `Conflict` once the next one was begun without them, `MapError`.
    """
    known = state.known(generation)
    doubts: dict[str, list[tuple[int, int]]] = {}
    for each in wanted.disks:
        if each.disk not in known.volumes:
            there = ", ".join(known.volumes)
            raise InvalidRequest(f"Generation {generation} has no disk {each.disk}; it has {there}.", "Name its disks.")
        size = state.map(each.disk, generation).size
        beyond = next((start for start, length in each.ranges if start + length > size), None)
        if beyond is not None:
            raise InvalidRequest(
                f"Disk {each.disk} has {size} bytes; the range at {beyond} goes beyond them.", "Name bytes that it has."
            )
        ranges = ((start, start + length) for start, length in each.ranges)
        doubts.setdefault(each.disk, []).extend(whole_blocks(ranges, size))
    if state.committed() == known and all(_noted(known, disk, ranges) for disk, ranges in doubts.items()):
        return known
    newer = [number for number in state.touched() if number > generation]
    if newer:
        raise Conflict(
            f"Generation {newer[-1]} was begun: it does not send what {generation} is now said to lack.",
            "Finish it, and look at what is lost of that one.",
        )
    return state.doubt(generation, doubts)


def _noted(known: Committed, disk: str, ranges: list[tuple[int, int]]) -> bool:
    there = Intervals(known.doubts.get(disk, ()))
    return not any(True for start, end in ranges for _ in there.missing(start, end))
