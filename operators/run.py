"""One run of one migration: its identity, and the clients that reach its agent, cloud and gateway."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from operators.hooks import AgentHook, backend_of, find_connection
from storage_backends.base import (
    BootableBackend,
    InstanceSpec,
    Kind,
    Labels,
    Resource,
    Role,
    State,
    VolumeSpec,
)
from storage_backends.errors import NotFound
from wavelift.manifest.plan import volume_gib
from wavelift.manifest.schema import Manifest, Migration, SourceDisk
from wavelift.service.client import ServiceClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import Context


def run_name(dag_id: str, run_id: str) -> str:
    """A short name of a DAG run, fit for tags and file names."""
    return hashlib.sha256(f"{dag_id}/{run_id}".encode()).hexdigest()[:12]


@dataclass(frozen=True)
class MigrationRun:
    """What every step works on. `run` is short, stable over retries, and different for every DAG run."""

    manifest: Manifest
    migration: Migration
    run: str

    @classmethod
    def of(cls, manifest: Manifest, migration: Migration, context: Context) -> MigrationRun:
        return cls(manifest, migration, run_name(context["dag"].dag_id, context["run_id"]))

    @property
    def key(self) -> str:
        """Name of this run on agent and gateway."""
        return f"{self.manifest.wave}-{self.migration.name}-{self.run}"

    def job_key(self, generation: int, step: str) -> str:
        return f"{self.key}/{generation}/{step}"

    def labels(self, role: Role | None = None, disk: str | None = None, generation: int | None = None) -> Labels:
        return Labels(self.manifest.wave, self.migration.name, self.run, role, disk, generation)

    @property
    def disks(self) -> list[SourceDisk]:
        return self.migration.source.ordered

    @property
    def bandwidth(self) -> dict[str, Any] | None:
        """The limit of what the agent sends, as the manifest has it now."""
        found = self.manifest.bandwidth_of(self.migration)
        return None if found is None else found.model_dump(mode="json")

    @contextmanager
    def agent(self) -> Iterator[ServiceClient]:
        with AgentHook(self.migration.source.agent).get_conn() as client:
            yield client

    def committed_generation(self) -> int:
        """What the next generation builds on. Raises ServiceError when the agent knows of none."""
        return int(self.committed()["generation"])

    def committed(self) -> Mapping[str, Any]:
        """The `generation` that is committed, and how many `doubted_bytes` the volumes are known not to hold of it.
        Raises ServiceError when the agent knows of none."""
        with self.agent() as agent:
            known: Mapping[str, Any] = agent.get(f"/v1/migrations/{self.key}")
            return known

    def backend(self) -> BootableBackend:
        cloud = self.manifest.cloud
        connection = find_connection(cloud.connection)
        return backend_of(connection, cloud.backend, cloud.region, cloud.zone)

    @contextmanager
    def gateway(self, backend: BootableBackend) -> Iterator[ServiceClient]:
        url, labels = backend.gateway_url(self.gateway_instance(backend)), self.labels()
        with ServiceClient(url, backend.gateway_token(labels), backend.gateway_fingerprint(labels)) as client:
            yield client

    def gateway_instance(self, backend: BootableBackend) -> Resource:
        """The run's gateway. Raises NotFound when provision has not made one."""
        for instance in backend.list(self.labels(Role.GATEWAY), Kind.INSTANCE):
            return instance
        raise NotFound(f"{self.key} has no gateway instance.", "Clear the task provision and run it again.")

    def volume(self, backend: BootableBackend, disk: str) -> Resource:
        """The replica volume of a disk. Raises NotFound when provision has not made one."""
        for volume in backend.list(self.labels(Role.REPLICA, disk), Kind.VOLUME):
            return volume
        raise NotFound(f"Disk {disk} of {self.key} has no volume.", "Clear the task provision and run it again.")

    def snapshots(self, backend: BootableBackend, role: Role, generation: int) -> dict[str, Resource]:
        """By disk, the usable snapshots of a generation, the boot disk first."""
        found = backend.list(self.labels(role, generation=generation), Kind.SNAPSHOT)
        usable = {snapshot.tag("disk"): snapshot for snapshot in found if snapshot.state is not State.FAILED}
        return {disk.id: usable[disk.id] for disk in self.disks if disk.id in usable}

    def latest_generation(self, backend: BootableBackend) -> int:
        """The newest generation of which every disk has a finished snapshot. Raises NotFound when there is none."""
        finished: dict[int, set[str]] = {}
        for snapshot in backend.list(self.labels(Role.REPLICA), Kind.SNAPSHOT):
            if snapshot.state is State.READY:
                finished.setdefault(int(snapshot.tag("generation")), set()).add(snapshot.tag("disk"))
        wanted = {disk.id for disk in self.disks}
        whole = [generation for generation, disks in finished.items() if disks >= wanted]
        if not whole:
            raise NotFound(f"{self.key} has no finished snapshot.", "Clear the task snapshot and run it again.")
        return max(whole)

    def volume_spec(self, disk: SourceDisk, source_bytes: int) -> VolumeSpec:
        target = self.migration.target
        return VolumeSpec(volume_gib(target, disk, source_bytes), target.disk_category, target.performance_level)

    def instance_spec(self, image_id: str, system_gib: int) -> InstanceSpec:
        target = self.migration.target
        return InstanceSpec(
            image_id=image_id,
            instance_type=target.instance_type,
            vswitch=target.vswitch,
            security_group=target.security_group,
            disk_category=target.disk_category,
            performance_level=target.performance_level,
            system_gib=system_gib,
            public_ip=target.public_ip,
        )


def offered_disks(agent: ServiceClient) -> Mapping[str, Mapping[str, Any]]:
    """By id, the disks that an agent offers."""
    disks: Sequence[Mapping[str, Any]] = agent.get("/v1/disks")
    return {disk["id"]: disk for disk in disks}
