"""One generation from the agent to where its route takes it: copied, read back there, compared by root, committed.
Full copy and cycles share it.

Straight to the gateway, blocks that do not read back as they were sent are sent again. On the way through an archive
the gateway hydrates the volumes from it; what the archive has lost is brought by the next generation, which is made at
once, in full where the archive cannot even tell what it holds. Either way all is read back again, and after two
repairs the step fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from operators.carriers import archives_of
from operators.jobs import Cloud, Held, Jobs, Waits
from operators.mending import lost_of, mismatch, repair_of
from operators.records import record_of
from operators.run import MigrationRun
from operators.step import Event, Outcome, StepOperator
from wavelift.manifest.route import Carrier

MAX_REPAIRS = 2
# An archive whose own objects are gone or damaged, by its carrier: disks that do not have a generation may be others.
_UNREADABLE = {
    Carrier.BUCKET: frozenset({"archive_damaged", "no_generation", "no_archive"}),
    Carrier.DISKS: frozenset({"archive_damaged", "bad_archive"}),
}
_NOT_JOINED = "base_mismatch"
Lost = dict[str, list[dict[str, int]]]


@dataclass(frozen=True)
class Base:
    """A generation that is built on, and the roots of its disks (hex) as they were read back."""

    generation: int
    roots: Mapping[str, str]


@dataclass(frozen=True)
class _Arrived:
    """What was read back at the end of the way, and by disk the ranges that the archive could not give. `afresh`: it
    cannot be built on any more."""

    target: dict[str, Any]
    lost: Lost
    afresh: bool


def replicate(step: StepOperator, run: MigrationRun, generation: int, base: Base | None, event: Event) -> Outcome:
    """A trigger while one of its jobs runs; the generation's record once it is committed.

    The generation of the record is a later one where blocks were lost that the source no longer had: the one asked for
    cannot be had any more, and its successor is made at once.
    """
    with ExitStack() as stack:
        agent = stack.enter_context(run.agent())
        cloud = None
        if run.migration.route.lands:
            backend = run.backend()
            cloud = Cloud(backend, stack.enter_context(run.gateway(backend)), run)
        try:
            return _Replication(step, run, Jobs(step, run, agent, cloud, event)).run(generation, base)
        except Waits as waits:
            return waits.trigger


class _Replication:
    def __init__(self, step: StepOperator, run: MigrationRun, jobs: Jobs) -> None:
        self._step, self._run, self._jobs = step, run, jobs
        self._route = run.migration.route
        self._repairs: list[dict[str, Any]] = []

    def run(self, generation: int, base: Base | None) -> dict[str, Any]:
        # Not the base any more once a hydration did not come out right.
        held = None if base is None else Held(base.generation, base.roots, base.roots)
        built_on = None if base is None else base.generation
        while True:
            carrier = self._route.carrier(generation)
            source = self._jobs.copy(generation, built_on, carrier)
            if carrier is Carrier.GATEWAY:
                arrived = _Arrived(self._jobs.read_back(generation), {}, afresh=False)
            else:
                arrived = self._through_archive(generation, held, carrier)
            if source["root"] == arrived.target["root"]:
                break
            self._require_hope(generation, source, arrived.target)
            pending = self._mend(generation, carrier, arrived)
            held = Held(generation, _roots(arrived.target), _roots(source))
            if pending:
                built_on = None if arrived.afresh else generation
                generation += 1
        self._jobs.commit(generation)
        return record_of(
            generation,
            carrier,
            source,
            arrived.target,
            self._jobs.copies.values(),
            self._jobs.hydrations.values(),
            self._jobs.proofs[-1],
            self._repairs,
        )

    def _mend(self, generation: int, carrier: Carrier, arrived: _Arrived) -> bool:
        """Whether the next generation has to bring what did not arrive."""
        if carrier is Carrier.GATEWAY:
            found = self._jobs.repair(generation)
            self._note(repair_of(found))
            return bool(found["pending_bytes"])
        self._note(lost_of(generation, arrived.lost))
        if arrived.lost and not arrived.afresh:
            self._jobs.doubt(generation, arrived.lost)
        return bool(arrived.lost)

    def _through_archive(self, generation: int, held: Held | None, carrier: Carrier) -> _Arrived:
        jobs, archives, sizes = self._jobs, archives_of(self._run, carrier), self._jobs.sizes(generation)
        everything: Lost = {disk: [{"offset": 0, "length": size}] for disk, size in sizes.items()}
        unreadable = _UNREADABLE[carrier]
        # What an increment was to bring and did not, all of it brings.
        again = bool(self._repairs)
        if not self._route.lands:
            if jobs.failed(generation, "check", unreadable):
                return _Arrived({"root": None, "disks": []}, everything, afresh=True)
            checked = jobs.check(generation, held, archives)
            if any(disk["base_elsewhere"] is not None for disk in checked["disks"]):
                # What it builds on is not there any more.
                return _Arrived({**checked, "root": None}, everything, afresh=True)
            return _Arrived(checked, _lost(checked, sizes, "lost"), again)
        # Once: when something else is found later, disks have left.
        if carrier is Carrier.DISKS and not self._repairs:
            checked = jobs.check(generation, held, archives)
            if checked["lost_bytes"]:
                self._step.log.warning("the disks lost blocks before they left: %s", checked["disks"])
        failed = jobs.failed(generation, "hydrate", {_NOT_JOINED, *unreadable})
        if failed in unreadable:
            return _Arrived(jobs.read_back(generation), everything, afresh=True)
        if failed == _NOT_JOINED:
            # A volume holds something else than it should: a gateway died in the midst of this, and what it had done
            # died with it. Nothing was written then.
            return _Arrived(jobs.read_back(generation), {}, afresh=False)
        hydrated = jobs.hydrate(generation, held, archives)
        return _Arrived(jobs.read_back(generation), _lost(hydrated, sizes, "missing"), again)

    def _note(self, repair: dict[str, Any]) -> None:
        self._repairs.append(repair)
        self._jobs.attempt = len(self._repairs)
        self._step.log.warning(
            "generation %d did not read back as it was sent: %s", repair["generation"], repair["disks"]
        )

    def _require_hope(self, generation: int, source: Mapping[str, Any], target: Mapping[str, Any]) -> None:
        if len(self._repairs) == MAX_REPAIRS:
            raise mismatch(self._run.key, self._jobs.places(), generation, source, target, self._repairs)


def _lost(found: Mapping[str, Any], sizes: Mapping[str, int], name: str) -> Lost:
    """By disk, the ranges that a job names; all of a disk where there were too many to name."""
    lost: Lost = {}
    for disk in found["disks"]:
        total, ranges = disk[f"{name}_bytes"], disk[name]
        if total:
            whole = [{"offset": 0, "length": sizes[disk["disk"]]}]
            lost[disk["disk"]] = ranges if sum(each["length"] for each in ranges) == total else whole
    return lost


def _roots(found: Mapping[str, Any]) -> dict[str, str]:
    return {disk["disk"]: disk["root"] for disk in found["disks"]}
