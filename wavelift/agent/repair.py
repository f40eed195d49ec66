"""The repair job: find the blocks of a generation that a volume does not hold, by what was read back of it, and
send them again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wavelift.agent.carriers import at_rest
from wavelift.agent.doubts import bounded
from wavelift.agent.limited import LimitedWatch
from wavelift.agent.replicate import Replicator, sinks_of
from wavelift.agent.specs import RepairSpec
from wavelift.agent.state import Committed, MigrationState
from wavelift.blocks.attempts import first_sequence
from wavelift.blocks.blockmap import DiskMap
from wavelift.blocks.compare import differences
from wavelift.blocks.copy import Ack, CopyDisk, CopySettings, copy_disks
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT
from wavelift.blocks.errors import SinkError
from wavelift.blocks.plan import Intervals, ranges
from wavelift.blocks.remote_map import RemoteMap
from wavelift.service.errors import Conflict, InvalidRequest, NotFound
from wavelift.service.job_context import JobContext
from wavelift.sources.base import PointInTime
from wavelift.sources.together import Since, open_all

# Named in the result; the total is there besides.
NAMED_RANGES = 100


@dataclass
class _Damage:
    """What one volume holds else than its map says. `ranges` may cover more where there is a lot of it."""

    map: DiskMap
    bytes: int = 0
    ranges: list[tuple[int, int]] = field(default_factory=list)
    repaired: Intervals = field(default_factory=Intervals)
    wire_bytes: int = 0

    def find(self, found: Iterable[tuple[int, int]]) -> None:
        def counted() -> Iterator[tuple[int, int]]:
            for start, end in found:
                self.bytes += end - start
                yield start, end

        self.ranges = bounded(counted())

    def sent(self, ack: Ack) -> None:
        """A block counts as repaired when what was sent is what the map names."""
        self.wire_bytes += ack.wire_bytes
        for offset, table in ack.tables:
            known = self.map.table(offset // SEGMENT)
            for at in range(0, len(table), DIGEST):
                start = offset + at // DIGEST * BLOCK
                place = start % SEGMENT // BLOCK * DIGEST
                if table[at : at + DIGEST] == known[place : place + DIGEST]:
                    self.repaired.add(start, min(start + BLOCK, self.map.size))

    @property
    def pending(self) -> list[tuple[int, int]]:
        return [piece for start, end in self.ranges for piece in self.repaired.missing(start, end)]


class Repairer:
    """Runs repair jobs, in turn with the replicate jobs of the same migration."""

    def __init__(self, state: Path, replicator: Replicator) -> None:
        self._state = state
        self._replicator = replicator

    def run(self, context: JobContext[RepairSpec]) -> dict[str, Any]:
        """Each differing block is read again from its source and sent. One that the source no longer has is `pending`:
        the generation cannot be had any more, and becomes a base whose pending blocks the next one sends.

        Can be run again: cut short, it goes on with what it found; else a volume it wrote to is to be read back anew.
        Raises `NotFound`, `Conflict`, `InvalidRequest`, `BlockError` and its kinds.
        """
        spec = context.spec
        with self._replicator.turn(spec.migration, context), ExitStack() as stack:
            state = MigrationState(self._state, spec.migration)
            known = _known(state, spec)
            watch = LimitedWatch(context, self._replicator.limits)
            watch.step("comparing")
            damages = [_find(state, known, context, watch, index) for index in range(len(spec.disks))]
            if any(damage.ranges for damage in damages):
                watch.step("opening")
                # The tokens of this very generation: its trackers go on, whatever becomes of the repair.
                sources = [
                    (self._replicator.find(each.disk), Since(known.tokens.get(each.disk), migration=spec.migration))
                    for each in spec.disks
                ]
                opened = open_all(stack, sources)
                # The gateway forgets what it read back once a volume is written to, and a block may be sent that is
                # another by now: whatever ends this, the next attempt or the next generation sends all of it.
                state.suspect(spec.generation, _noted(spec, [damage.ranges for damage in damages]))
                watch.step("sending")
                former = (state.begun(spec.generation) or {}).get("first")
                self._send(context, watch, opened, damages, first_sequence(former))
            pending = [damage.pending for damage in damages]
            state.suspect(spec.generation, doubts := _noted(spec, pending))
            if doubts:
                state.doubt(spec.generation, doubts)
            return {
                "generation": spec.generation,
                "disks": [_report(damage) for damage in damages],
                "differing_bytes": sum(damage.bytes for damage in damages),
                "pending_bytes": sum(map(_bytes, pending)),
            }

    def _send(
        self,
        context: JobContext[RepairSpec],
        watch: LimitedWatch,
        sources: Sequence[PointInTime],
        damages: list[_Damage],
        sequence: int,
    ) -> None:
        spec = context.spec
        # A source of another size now has another content: left to the next generation.
        usable = [index for index, damage in enumerate(damages) if sources[index].size == damage.map.size]
        disks = [
            CopyDisk(
                disk=spec.disks[index].disk,
                volume=spec.disks[index].sink.volume,
                size=sources[index].size,
                source=sources[index],
                work=ranges(
                    [(start, end, False) for start, end in damages[index].ranges], sources[index].size, Intervals()
                ),
                open_sink=sinks_of(context, index, self._replicator.wire, self._replicator.limits),
                pack_bytes=spec.disks[index].sink.max_pack_bytes,
            )
            for index in usable
        ]
        total = sum(_bytes(damages[index].ranges) for index in usable)

        def acknowledge(ack: Ack) -> None:
            damages[usable[ack.disk]].sent(ack)

        def check() -> None:
            watch.check()
            done = sum(damage.repaired.total for damage in damages)
            wire = sum(damage.wire_bytes for damage in damages)
            watch.progress(total=total, done=done, wire=wire, read=done, written=done)

        if disks:
            # One worker: what it sends is little, and `acknowledge` then needs no lock.
            settings = CopySettings(spec.migration, spec.generation, workers=1, first_sequence=sequence)
            copy_disks(settings, disks, acknowledge, check)


def _known(state: MigrationState, spec: RepairSpec) -> Committed:
    known = state.known(spec.generation)
    named = {each.disk: each.sink.volume for each in spec.disks}
    # Out of an archive any volume may have been filled: what that one holds is compared.
    if len(named) < len(spec.disks) or named != {
        disk: named.get(disk) if at_rest(volume) else volume for disk, volume in known.volumes.items()
    }:
        held = ", ".join(f"{disk} on {volume}" for disk, volume in known.volumes.items())
        raise InvalidRequest(f"Generation {spec.generation} is {held}; the job names others.", "Name these disks.")
    newer = [number for number in state.touched() if number > spec.generation]
    if newer:
        raise Conflict(
            f"Generation {newer[-1]} was begun: the volumes are on their way from {spec.generation} to it.",
            "Finish that generation and verify it.",
        )
    return known


def _find(
    state: MigrationState, known: Committed, context: JobContext[RepairSpec], watch: LimitedWatch, index: int
) -> _Damage:
    spec = context.spec
    wanted = spec.disks[index]
    found = state.map(wanted.disk, spec.generation)
    damage = _Damage(found)
    try:
        there = RemoteMap(lambda: context.spec.disks[index].sink, context.stop)
    except SinkError as error:
        doubts = known.doubts.get(wanted.disk)
        if error.code != NotFound.default_code or not doubts:
            raise
        # A repair that was cut short has written to it since.
        damage.find(doubts)
        return damage
    with there:
        if (there.disk, there.size) != (found.disk, found.size):
            raise Conflict(
                f"Volume {wanted.sink.volume} was read back as disk {there.disk} of {there.size} bytes, not as "
                f"{found.disk} of {found.size}.",
                "Run a verify job for this disk first.",
            )
        damage.find(differences(found, there, watch.check))
    return damage


def _noted(spec: RepairSpec, found: Sequence[Sequence[tuple[int, int]]]) -> dict[str, Sequence[tuple[int, int]]]:
    return {each.disk: ranges for each, ranges in zip(spec.disks, found, strict=True) if ranges}


def _report(damage: _Damage) -> dict[str, Any]:
    pending = damage.pending
    return {
        "disk": damage.map.disk,
        "differing_bytes": damage.bytes,
        "differing": _named(damage.ranges),
        "repaired_bytes": damage.repaired.total,
        "pending_bytes": _bytes(pending),
        "pending": _named(pending),
        "wire_bytes": damage.wire_bytes,
    }


def _named(found: Sequence[tuple[int, int]]) -> list[dict[str, int]]:
    return [{"offset": start, "length": end - start} for start, end in found[:NAMED_RANGES]]


def _bytes(found: Iterable[tuple[int, int]]) -> int:
    return sum(end - start for start, end in found)
