"""The jobs that bring a generation: what agent and gateway are asked, under which keys, and what they answered."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from airflow.triggers.base import BaseTrigger

from operators.carriers import Archives, archives_of
from operators.records import result_of
from operators.run import MigrationRun, offered_disks
from operators.spread import JobService
from operators.step import Event, StepOperator
from storage_backends.base import BootableBackend
from wavelift.manifest.route import Carrier
from wavelift.service.client import ServiceClient, ServiceError
from wavelift.service.jobs import JobState, JobStatus


class Waits(Exception):
    """A job is under way; the trigger waits for it."""

    def __init__(self, trigger: BaseTrigger) -> None:
        super().__init__()
        self.trigger = trigger


@dataclass(frozen=True)
class Cloud:
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


@dataclass(frozen=True)
class Held:
    """What the volumes hold, by disk the roots (hex) that were read back, and those that they were to have."""

    generation: int
    roots: Mapping[str, str]
    meant: Mapping[str, str]


class Jobs:
    """`copy`, `repair`, `check`, `hydrate` and `read_back` give a job's result, or raise `Waits`, or the job's own
    error. `attempt` counts what was tried to get a generation right: a job that looks stands for the copy and the
    repairs before it, never for later ones."""

    def __init__(
        self, step: StepOperator, run: MigrationRun, agent: ServiceClient, cloud: Cloud | None, event: Event
    ) -> None:
        self._step, self._run, self._agent, self._event = step, run, agent, event
        self._cloud = cloud
        self.attempt = 0
        self.copies: dict[int, JobStatus] = {}
        self.hydrations: dict[str, JobStatus] = {}
        self.proofs: list[JobStatus] = []

    def copy(self, generation: int, base: int | None, carrier: Carrier) -> dict[str, Any]:
        spec = {
            "kind": "replicate",
            **self._about(generation),
            "base": base,
            "disks": self._sinks(generation, carrier),
            "bandwidth": self._run.bandwidth,
        }
        copied = self._on_agent(self._run.job_key(generation, "copy"), spec)
        self.copies[generation] = copied
        return result_of(copied)

    def repair(self, generation: int) -> dict[str, Any]:
        spec = {
            "kind": "repair",
            **self._about(generation),
            "disks": self._sinks(generation, Carrier.GATEWAY),
            "bandwidth": self._run.bandwidth,
        }
        return result_of(self._on_agent(self._key(generation, "repair"), spec))

    def check(self, generation: int, held: Held | None, archives: Archives) -> dict[str, Any]:
        """What the archives hold, by the agent."""
        disks = [
            {"disk": disk, "archive": archive, "base_root": None if held is None else held.roots.get(disk)}
            for disk, archive in archives.checked(self.sizes(generation)).items()
        ]
        spec = {"kind": "check", **self._about(generation), "disks": disks}
        self.proofs.append(self._on_agent(self._key(generation, "check"), spec))
        return result_of(self.proofs[-1])

    def hydrate(self, generation: int, held: Held | None, archives: Archives) -> dict[str, Any]:
        opened, volumes = archives.read(self.sizes(generation)), self._target.volumes()
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
            for disk in self._copied(generation)
        ]
        spec = {
            "kind": "hydrate",
            **self._about(generation),
            "base": None if held is None else held.generation,
            "disks": disks,
            "wait_seconds": archives.arrival_seconds,
        }
        key = self._key(generation, "hydrate")
        self.hydrations[key] = self._on_gateway(key, spec)
        return result_of(self.hydrations[key])

    def read_back(self, generation: int) -> dict[str, Any]:
        volumes = self._target.volumes()
        disks = [
            {"disk": each["disk"], "volume": volumes[each["disk"]], "size": each["size"]}
            for each in self._copied(generation)
        ]
        spec = {"kind": "verify", **self._about(generation), "disks": disks}
        self.proofs.append(self._on_gateway(self._key(generation, "verify"), spec))
        return result_of(self.proofs[-1])

    def failed(self, generation: int, name: str, codes: Collection[str]) -> str | None:
        """With which of these codes the check or the hydration of this attempt has failed; None when it did not."""
        service: JobService = self._agent if name == "check" else self._target.gateway
        try:
            there = service.job(self._key(generation, name))
        except ServiceError as error:
            if error.http_status != 404:
                raise
            return None
        return there.error.code if there.error is not None and there.error.code in codes else None

    def sizes(self, generation: int) -> dict[str, int]:
        """Bytes by disk of a generation that was copied."""
        return {disk["disk"]: int(disk["size"]) for disk in self._copied(generation)}

    def doubt(self, generation: int, lost: Mapping[str, list[dict[str, int]]]) -> None:
        """Have the agent send these ranges with the next generation."""
        if self._committed() > generation:
            # Entered once more: the next one has brought it.
            return
        ranges = [
            {"disk": disk, "ranges": [[each["offset"], each["length"]] for each in found]}
            for disk, found in lost.items()
        ]
        self._agent.post(f"/v1/migrations/{self._run.key}/generations/{generation}/doubts", {"disks": ranges})

    def commit(self, generation: int) -> None:
        self._agent.post(f"/v1/migrations/{self._run.key}/generations/{generation}/commit")

    def places(self) -> dict[str, str]:
        """What keeps each disk, for who has to look."""
        there = self._cloud.volumes() if self._cloud is not None else {}
        return {disk.id: there.get(disk.id, "archive") for disk in self._run.disks}

    def _committed(self) -> int:
        """The generation that counts at the agent; 0 before the first."""
        try:
            return int(self._agent.get(f"/v1/migrations/{self._run.key}")["generation"])
        except ServiceError as error:
            if error.http_status != 404:
                raise
            return 0

    def _sinks(self, generation: int, carrier: Carrier) -> list[dict[str, Any]]:
        if carrier is Carrier.GATEWAY:
            return self._target.sinks(generation)
        offered = offered_disks(self._agent)
        sizes = {disk.id: int(offered.get(disk.id, {}).get("size", 0)) for disk in self._run.disks}
        written = archives_of(self._run, carrier).written(sizes, generation)
        return [{"disk": disk, "sink": archive} for disk, archive in written.items()]

    def _copied(self, generation: int) -> list[dict[str, Any]]:
        disks: list[dict[str, Any]] = result_of(self.copies[generation])["disks"]
        return disks

    def _key(self, generation: int, name: str) -> str:
        copied = self.copies[generation]
        return self._run.job_key(generation, f"{name}-{copied.created:%Y%m%dT%H%M%S}-{copied.attempt}-{self.attempt}")

    def _about(self, generation: int) -> dict[str, Any]:
        return {"migration": self._run.key, "generation": generation}

    def _on_agent(self, key: str, spec: Mapping[str, Any]) -> JobStatus:
        status = self._step.job(self._agent, key, spec, self._event)
        if status.state is not JobState.SUCCEEDED:
            raise Waits(self._step.wait_for_agent(self._run, key))
        return status

    def _on_gateway(self, key: str, spec: Mapping[str, Any]) -> JobStatus:
        status = self._step.job(self._target.gateway, key, spec, self._event)
        if status.state is not JobState.SUCCEEDED:
            raise Waits(self._step.wait_for_gateway(self._run, key))
        return status

    @property
    def _target(self) -> Cloud:
        assert self._cloud is not None, "only a route that lands has volumes"
        return self._cloud
