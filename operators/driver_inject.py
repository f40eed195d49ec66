"""Clones of the newest generation, made ready to boot on the target's hardware. The replica is never touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operators.provision import wait_for_volumes
from operators.run import MigrationRun
from operators.step import Event, Outcome, StepOperator
from storage_backends.base import Role, VolumeSpec
from wavelift.service.jobs import JobState

if TYPE_CHECKING:
    from airflow.sdk import Context


class DriverInjectOperator(StepOperator):
    """Clone, attach, prepare on the gateway, detach. The result is the guest's report."""

    def advance(self, run: MigrationRun, context: Context, event: Event) -> Outcome:
        backend = run.backend()
        generation = run.latest_generation(backend)
        gateway = run.gateway_instance(backend)
        snapshots = run.snapshots(backend, Role.REPLICA, generation)
        target = run.migration.target
        clones = {}
        for disk in run.disks:
            snapshot = snapshots[disk.id]
            spec = VolumeSpec(snapshot.size_gib, target.disk_category, target.performance_level)
            clones[disk.id] = backend.clone(snapshot, run.labels(Role.CLONE, disk.id, generation), spec)
        key = run.job_key(generation, "prepare")
        with run.gateway(backend) as service:
            if event.get("job") != key:
                for clone in clones.values():
                    backend.attach(clone.id, gateway.id)
                wait_for_volumes(service, {clone.id for clone in clones.values()}, backend, gateway.id)
            status = self.job(
                service,
                key,
                {
                    "kind": "prepare",
                    "migration": run.key,
                    "generation": generation,
                    "disks": [{"disk": disk, "volume": clone.id} for disk, clone in clones.items()],
                },
                event,
            )
        if status.state is not JobState.SUCCEEDED:
            return self.wait_for_gateway(run, key)
        for clone in clones.values():
            backend.detach(clone.id)
        return {
            "generation": generation,
            "clones": {disk: clone.id for disk, clone in clones.items()},
            "report": dict(status.result or {}),
        }
