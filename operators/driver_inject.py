"""Clones of the newest generation, made ready to boot on the target's hardware. The replica is never touched."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

from operators.image import FIRMWARE
from operators.places import SLOTS
from operators.run import MigrationRun
from operators.step import Event, Outcome, StepOperator
from storage_backends.base import BootableBackend, Kind, Role, VolumeSpec
from storage_backends.errors import Conflict
from wavelift.service.jobs import JobState

if TYPE_CHECKING:
    from airflow.sdk import Context

_DISCARD_SECONDS = 300.0


class DriverInjectOperator(StepOperator):
    """Clone, attach, prepare on the gateway, detach. The result is the guest's report."""

    def advance(self, run: MigrationRun, context: Context, event: Event) -> Outcome:
        backend = run.backend()
        generation = run.latest_generation(backend)
        snapshots = run.snapshots(backend, Role.REPLICA, generation)
        target = run.migration.target
        if not event:
            _discard(run, backend, generation)
        clones = {}
        for disk in run.disks:
            snapshot = snapshots[disk.id]
            spec = VolumeSpec(snapshot.size_gib, target.disk_category, target.performance_level)
            clones[disk.id] = backend.clone(snapshot, run.labels(Role.CLONE, disk.id, generation), spec)
        names = "/".join(clone.id for clone in clones.values())
        key = run.job_key(generation, f"prepare-{hashlib.sha256(names.encode()).hexdigest()[:8]}")
        # The instance that prepares sees no more disks at once than a gateway has slots; the boot disk is the first.
        seen = dict(list(clones.items())[:SLOTS])
        with run.gateways(backend).serving({disk: clone.id for disk, clone in seen.items()}) as service:
            status = self.job(
                service,
                key,
                {
                    "kind": "prepare",
                    "migration": run.key,
                    "generation": generation,
                    "disks": [{"disk": disk, "volume": clone.id} for disk, clone in seen.items()],
                    "wishes": run.migration.guest.model_dump(mode="json"),
                },
                event,
            )
        if status.state is not JobState.SUCCEEDED:
            return self.wait_for_gateway(run, key)
        report = dict(status.result or {})
        backend.mark(clones[run.disks[0].id], FIRMWARE, report["firmware"])
        for clone in seen.values():
            backend.detach(clone.id)
        return {
            "generation": generation,
            "clones": {disk: clone.id for disk, clone in clones.items()},
            "report": report,
        }


def _discard(run: MigrationRun, backend: BootableBackend, generation: int) -> None:
    """What an earlier preparation of this generation led to: later steps must not find it and take it for new."""
    deadline = time.monotonic() + _DISCARD_SECONDS
    for role, kind in ((Role.TARGET, Kind.INSTANCE), (Role.PREPARED, Kind.IMAGE), (Role.PREPARED, Kind.SNAPSHOT)):
        while stale := backend.list(run.labels(role, generation=generation), kind):
            for resource in stale:
                try:
                    backend.delete(resource)
                except Conflict:
                    # It is still starting, or still used by what was deleted a moment ago.
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(1.0)
