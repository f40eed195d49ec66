"""One generation from the agent to where its route takes it: copied, read back there, compared by root, committed.
Full copy and cycles share it.

Straight to the gateway, blocks that do not read back as they were sent are sent again. On the way through an archive
the gateway hydrates the volumes from it; what the archive has lost is brought by the next generation, which is made at
once. Either way all is read back again, and after two repairs the step fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from airflow.triggers.base import BaseTrigger

from operators.carriers import Archives, archives_of
from operators.mending import lost_of, mismatch, repair_of
from operators.records import record_of, result_of
from operators.run import MigrationRun, offered_disks
from operators.spread import JobService
from operators.step import Event, Outcome, StepOperator
from storage_backends.base import BootableBackend
from wavelift.manifest.route import Carrier
from wavelift.service.client import ServiceClient, ServiceError
from wavelift.service.jobs import JobState, JobStatus

MAX_REPAIRS = 2


@dataclass(frozen=True)
class Base:
    """A generation that is built on, and the roots of its disks (hex) as they were read back."""

    generation: int
    roots: Mapping[str, str]


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
            cloud = _Cloud(backend, stack.enter_context(run.gateway(backend)), run)
        try:
            return _Replication(step, run, agent, cloud, event).run(generation, base)
        except _Waits as waits:
            return waits.trigger


@dataclass(frozen=True)
class _Held:
    """What the volumes hold, by disk the roots (hex) that were read back, and those that they were to have."""

    generation: int
    roots: Mapping[str, str]
    meant: Mapping[str, str]


class _Waits(Exception):
    """A job is under way; the trigger waits for it."""

    def __init__(self, trigger: BaseTrigger) -> None:
        super().__init__()
        self.trigger = trigger


@dataclass(frozen=True)
class _Cloud:
    """What a route that lands ends in."""

    backend: BootableBackend
    gateway: JobService
    run: MigrationRun

    def volumes(self) -> dict[str, str]:
        """Ids by disk."""
        return {disk.id: self.run.volume(self.backend, disk.id).id for disk in self.run.disks}

    def sinks(self, generation: int) -> list[dict[str, Any]]:
        labels = self.run.labels()
        return [
            {"disk": disk, "sink": self.backend.sink(volume, labels, generation).model_dump()}
            for disk, volume in self.volumes().items()
        ]


class _Replication:
    def __init__(
        self, step: StepOperator, run: MigrationRun, agent: ServiceClient, cloud: _Cloud | None, event: Event
    ) -> None:
        self._step, self._run, self._agent, self._event = step, run, agent, event
        self._cloud = cloud
        self._repairs: list[dict[str, Any]] = []
        self._copies: dict[int, JobStatus] = {}
        self._proofs: list[JobStatus] = []
        self._hydrations: dict[str, JobStatus] = {}

    def run(self, generation: int, base: Base | None) -> dict[str, Any]:
        # Not the base any more once a hydration did not come out right.
        held = None if base is None else _Held(base.generation, base.roots, base.roots)
        while True:
            carrier = self._run.migration.route.carrier(generation)
            source = self._copy(generation, base, carrier)
            if carrier is Carrier.GATEWAY:
                target = self._read_back(generation)
                if source["root"] == target["root"]:
                    break
                self._require_hope(generation, source, target)
                pending = self._repair(generation)
            else:
                target, lost = self._through_archive(generation, held, carrier, source)
                if source["root"] == target["root"]:
                    break
                self._require_hope(generation, source, target)
                pending = self._give_up(generation, lost)
            held = _Held(generation, _roots(target), _roots(source))
            if pending:
                base = Base(generation, held.roots)
                generation += 1
        self._agent.post(f"/v1/migrations/{self._run.key}/generations/{generation}/commit")
        return record_of(
            generation,
            carrier,
            source,
            target,
            self._copies.values(),
            self._hydrations.values(),
            self._proofs[-1],
            self._repairs,
        )

    def _copy(self, generation: int, base: Base | None, carrier: Carrier) -> dict[str, Any]:
        spec = {
            "kind": "replicate",
            **self._about(generation),
            "base": None if base is None else base.generation,
            "disks": self._sinks(generation, carrier),
            "bandwidth": self._run.bandwidth,
        }
        copied = self._on_agent(self._run.job_key(generation, "copy"), spec)
        self._copies[generation] = copied
        return result_of(copied)

    def _sinks(self, generation: int, carrier: Carrier) -> list[dict[str, Any]]:
        if carrier is Carrier.GATEWAY:
            return self._target.sinks(generation)
        written = archives_of(self._run, carrier).written(self._sizes(), generation)
        return [{"disk": disk, "sink": archive} for disk, archive in written.items()]

    def _repair(self, generation: int) -> bool:
        """Whether the next generation has to bring what the source no longer had."""
        spec = {
            "kind": "repair",
            **self._about(generation),
            "disks": self._sinks(generation, Carrier.GATEWAY),
            "bandwidth": self._run.bandwidth,
        }
        found = result_of(self._on_agent(self._key(generation, "repair"), spec))
        self._note(repair_of(found))
        return bool(found["pending_bytes"])

    def _through_archive(
        self, generation: int, held: _Held | None, carrier: Carrier, source: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, list[dict[str, int]]]]:
        """What was read back at the end of the way, and by disk the ranges that the archive could not give."""
        archives = archives_of(self._run, carrier)
        sizes = {disk["disk"]: int(disk["size"]) for disk in source["disks"]}
        # Once: when something else is found later, disks have left.
        leaving = carrier is Carrier.DISKS and not self._repairs
        if not self._run.migration.route.lands or leaving:
            checked = self._check(generation, held, archives, sizes)
            if not self._run.migration.route.lands:
                return checked, _lost(checked, sizes, "lost")
            if checked["lost_bytes"]:
                self._step.log.warning("the disks lost blocks before they left: %s", checked["disks"])
        opened, volumes = archives.read(sizes), self._target.volumes()
        disks = [
            {
                "disk": disk["disk"],
                "volume": volumes[disk["disk"]],
                "size": disk["size"],
                "root": disk["root"],
                "base_root": None if held is None else held.roots.get(disk["disk"]),
                "joins": None if held is None else held.meant.get(disk["disk"]),
                "archive": opened[disk["disk"]],
            }
            for disk in source["disks"]
        ]
        spec = {
            "kind": "hydrate",
            **self._about(generation),
            "base": None if held is None else held.generation,
            "disks": disks,
            "wait_seconds": archives.arrival_seconds,
        }
        hydrated = self._hydrate(self._key(generation, "hydrate"), spec)
        lost = {} if hydrated is None else _lost(result_of(hydrated), sizes, "missing")
        return self._read_back(generation), lost

    def _hydrate(self, key: str, spec: Mapping[str, Any]) -> JobStatus | None:
        """None where a volume holds something else than it should: a gateway died in the midst of this, and what it had
        done died with it. Nothing was written then."""
        try:
            there = self._target.gateway.job(key)
        except ServiceError as error:
            if error.http_status != 404:
                raise
        else:
            if there.error is not None and there.error.code == "base_mismatch":
                return None
        self._hydrations[key] = self._on_gateway(key, spec)
        return self._hydrations[key]

    def _check(
        self, generation: int, held: _Held | None, archives: Archives, sizes: Mapping[str, int]
    ) -> dict[str, Any]:
        disks = [
            {"disk": disk, "archive": archive, "base_root": None if held is None else held.roots.get(disk)}
            for disk, archive in archives.written(sizes, generation).items()
        ]
        checked = self._on_agent(
            self._key(generation, "check"), {"kind": "check", **self._about(generation), "disks": disks}
        )
        self._proofs.append(checked)
        return result_of(checked)

    def _read_back(self, generation: int) -> dict[str, Any]:
        volumes = self._target.volumes()
        disks = [
            {"disk": each["disk"], "volume": volumes[each["disk"]], "size": each["size"]}
            for each in result_of(self._copies[generation])["disks"]
        ]
        verified = self._on_gateway(
            self._key(generation, "verify"), {"kind": "verify", **self._about(generation), "disks": disks}
        )
        self._proofs.append(verified)
        return result_of(verified)

    def _give_up(self, generation: int, lost: Mapping[str, list[dict[str, int]]]) -> bool:
        """Leave to the next generation what the archive lost. Whether there is any."""
        self._note(lost_of(generation, lost))
        if not lost:
            return False
        if self._committed() > generation:
            # Entered once more: the next one has brought it.
            return True
        ranges = [
            {"disk": disk, "ranges": [[each["offset"], each["length"]] for each in found]}
            for disk, found in lost.items()
        ]
        self._agent.post(f"/v1/migrations/{self._run.key}/generations/{generation}/doubts", {"disks": ranges})
        return True

    def _committed(self) -> int:
        """The generation that counts at the agent; 0 before the first."""
        try:
            return int(self._agent.get(f"/v1/migrations/{self._run.key}")["generation"])
        except ServiceError as error:
            if error.http_status != 404:
                raise
            return 0

    def _note(self, repair: dict[str, Any]) -> None:
        self._repairs.append(repair)
        self._step.log.warning(
            "generation %d did not read back as it was sent: %s", repair["generation"], repair["disks"]
        )

    def _require_hope(self, generation: int, source: Mapping[str, Any], target: Mapping[str, Any]) -> None:
        if len(self._repairs) == MAX_REPAIRS:
            there = self._cloud.volumes() if self._cloud is not None else {}
            places = {disk.id: there.get(disk.id, "archive") for disk in self._run.disks}
            raise mismatch(self._run.key, places, generation, source, target, self._repairs)

    def _key(self, generation: int, step: str) -> str:
        """A verification stands for the copy and the repairs it followed, never for later ones."""
        copied = self._copies[generation]
        return self._run.job_key(
            generation, f"{step}-{copied.created:%Y%m%dT%H%M%S}-{copied.attempt}-{len(self._repairs)}"
        )

    def _about(self, generation: int) -> dict[str, Any]:
        return {"migration": self._run.key, "generation": generation}

    def _on_agent(self, key: str, spec: Mapping[str, Any]) -> JobStatus:
        status = self._step.job(self._agent, key, spec, self._event)
        if status.state is not JobState.SUCCEEDED:
            raise _Waits(self._step.wait_for_agent(self._run, key))
        return status

    def _on_gateway(self, key: str, spec: Mapping[str, Any]) -> JobStatus:
        status = self._step.job(self._target.gateway, key, spec, self._event)
        if status.state is not JobState.SUCCEEDED:
            raise _Waits(self._step.wait_for_gateway(self._run, key))
        return status

    @property
    def _target(self) -> _Cloud:
        assert self._cloud is not None, "only a route that lands has volumes"
        return self._cloud

    def _sizes(self) -> dict[str, int]:
        offered = offered_disks(self._agent)
        return {disk.id: int(offered.get(disk.id, {}).get("size", 0)) for disk in self._run.disks}


def _lost(found: Mapping[str, Any], sizes: Mapping[str, int], name: str) -> dict[str, list[dict[str, int]]]:
    """By disk, the ranges that a job names; all of a disk where there were too many to name."""
    lost: dict[str, list[dict[str, int]]] = {}
    for disk in found["disks"]:
        total, ranges = disk[f"{name}_bytes"], disk[name]
        if total:
            whole = [{"offset": 0, "length": sizes[disk["disk"]]}]
            lost[disk["disk"]] = ranges if sum(each["length"] for each in ranges) == total else whole
    return lost


def _roots(found: Mapping[str, Any]) -> dict[str, str]:
    return {disk["disk"]: disk["root"] for disk in found["disks"]}
