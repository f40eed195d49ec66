"""A custom image of the prepared clones, system and data disks together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operators.run import MigrationRun
from operators.step import Event, Outcome, StepOperator
from storage_backends.base import Kind, Role
from storage_backends.errors import NotFound

if TYPE_CHECKING:
    from airflow.sdk import Context


class ImageOperator(StepOperator):
    """Snapshot the clones, make the image, delete the clones: the snapshots hold everything."""

    def advance(self, run: MigrationRun, context: Context, event: Event) -> Outcome:
        backend = run.backend()
        generation = run.latest_generation(backend)
        snapshots = run.snapshots(backend, Role.PREPARED, generation)
        for disk in run.disks:
            if disk.id in snapshots:
                continue
            clones = backend.list(run.labels(Role.CLONE, disk.id, generation), Kind.VOLUME)
            if not clones:
                raise NotFound(
                    f"Disk {disk.id} of {run.key} has no prepared clone of generation {generation}.",
                    "Clear the task driver_inject and run it again.",
                )
            snapshots[disk.id] = backend.snapshot(clones[0].id, run.labels(Role.PREPARED, disk.id, generation))
        ordered = [snapshots[disk.id] for disk in run.disks]
        if pending := self.wait_for(run, ordered):
            return pending
        image = backend.create_image(run.labels(Role.PREPARED, generation=generation), ordered)
        if pending := self.wait_for(run, [image]):
            return pending
        for clone in backend.list(run.labels(Role.CLONE), Kind.VOLUME):
            backend.delete(clone)
        return {
            "generation": generation,
            "image": image.id,
            "snapshots": {disk.id: snapshots[disk.id].id for disk in run.disks},
            "system_gib": ordered[0].size_gib,
        }
