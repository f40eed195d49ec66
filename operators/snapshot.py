"""A snapshot of every replica volume: a generation made permanent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operators.run import MigrationRun
from operators.step import Event, Outcome, StepFailed, StepOperator
from storage_backends.base import Role

if TYPE_CHECKING:
    from airflow.sdk import Context


def take_snapshots(step: StepOperator, run: MigrationRun, generation: int) -> Outcome:
    """A trigger while one of them is under way; their ids by disk once all are finished. They are made where the route
    ends: of the volumes in the cloud, or of the archives."""
    backend = run.home()
    snapshots = {
        disk.id: backend.snapshot(run.volume(backend, disk.id).id, run.labels(Role.REPLICA, disk.id, generation))
        for disk in run.disks
    }
    pending = step.wait_for(run, list(snapshots.values()))
    return pending or {disk: snapshot.id for disk, snapshot in snapshots.items()}


class GenerationDoubted(StepFailed):
    default_code = "generation_doubted"


class SnapshotOperator(StepOperator):
    """The full copy's generation, made permanent; the incremental loop takes snapshots of its own cycles."""

    def advance(self, run: MigrationRun, context: Context, event: Event) -> Outcome:
        committed = run.committed()
        generation = int(committed["generation"])
        if committed["doubted_bytes"]:
            raise GenerationDoubted(
                f"The volumes of {run.key} do not hold {committed['doubted_bytes']} bytes of generation {generation}: "
                "they were found wrong, and are not repaired.",
                "Run a sync cycle: the next generation sends them.",
            )
        taken = take_snapshots(self, run, generation)
        return {"generation": generation, "snapshots": taken} if isinstance(taken, dict) else taken
