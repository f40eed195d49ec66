"""One run of one migration: its identity, and the clients that reach its agent, cloud and gateway."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from operators.gateways import Gateways
from operators.hooks import AgentHook, archive_of, backend_of, find_connection
from operators.places import gateway_labels
from storage_backends.base import (
    BootableBackend,
    InstanceSpec,
    Kind,
    Labels,
    ReadableBackend,
    Resource,
    Role,
    State,
    StorageBackend,
    VolumeSpec,
)
from storage_backends.errors import NotFound
from wavelift.manifest.plan import volume_gib
from wavelift.manifest.schema import Manifest, Migration, SourceDisk
from wavelift.service.client import ServiceClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import Context

    from operators.spread import JobService


def run_name(dag_id: str, run_id: str) -> str:
    """A short name of a DAG run, fit for tags and file names."""
    return hashlib.sha256(f"{dag_id}/{run_id}".encode()).hexdigest()[:12]


@dataclass(frozen=True)
class MigrationRun:
    """What every step works on. `run` is short, stable over retries, and different for every DAG run; `pool` is that of
    the wave, which triggers its migrations under its own run id: they share gateways."""

    manifest: Manifest
    migration: Migration
    run: str
    pool: str

    @classmethod
    def of(cls, manifest: Manifest, migration: Migration, context: Context) -> MigrationRun:
        run_id = context["run_id"]
        pool = run_name(f"gateways of {manifest.wave}", run_id)
        return cls(manifest, migration, run_name(context["dag"].dag_id, run_id), pool)

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

    def committed(self) -> Mapping[str, Any]:
        """The `generation` that is committed, its `disks` with their roots, and how many `doubted_bytes` the volumes
        are known not to hold of it. Raises ServiceError when the agent knows of none."""
        with self.agent() as agent:
            known: Mapping[str, Any] = agent.get(f"/v1/migrations/{self.key}")
            return known

    def backend(self) -> BootableBackend:
        cloud = self.manifest.cloud
        connection = find_connection(cloud.connection)
        return backend_of(connection, cloud.backend, cloud.region, cloud.zone)

    def archive(self) -> ReadableBackend:
        """What keeps the archives of a route that uses them. Raises BackendError naming a missing field."""
        assert self.manifest.archive is not None, "the schema requires it for such a route"
        return archive_of(find_connection(self.manifest.archive.connection))

    def home(self) -> StorageBackend:
        """Where the route ends."""
        return self.backend() if self.migration.route.lands else self.archive()

    def gateway_labels(self, number: int | None = None) -> Labels:
        return gateway_labels(self.manifest, self.pool, number)

    def gateways(self, backend: BootableBackend) -> Gateways:
        return Gateways(backend, self.manifest, self.migration, self.pool, self.labels())

    @contextmanager
    def gateway(self, backend: BootableBackend) -> Iterator[JobService]:
        """What runs jobs on the replica volumes. Raises NotFound when provision has not made them."""
        volumes = {disk.id: self.volume(backend, disk.id).id for disk in self.disks}
        with self.gateways(backend).serving(volumes) as service:
            yield service

    def volume(self, backend: StorageBackend, disk: str) -> Resource:
        """The replica volume of a disk. Raises NotFound when provision has not made one."""
        for volume in backend.list(self.labels(Role.REPLICA, disk), Kind.VOLUME):
            return volume
        raise NotFound(f"Disk {disk} of {self.key} has no volume.", "Clear the task provision and run it again.")

    def snapshots(self, backend: BootableBackend, role: Role, generation: int) -> dict[str, Resource]:
        """By disk, the usable snapshots of a generation, the boot disk first."""
        found = backend.list(self.labels(role, generation=generation), Kind.SNAPSHOT)
        usable = {snapshot.tag("disk"): snapshot for snapshot in found if snapshot.state is not State.FAILED}
        return {disk.id: usable[disk.id] for disk in self.disks if disk.id in usable}

    def latest_generation(self, backend: StorageBackend) -> int:
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
