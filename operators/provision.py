"""A volume for each disk, attached to a gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operators.carriers import StoredArchives
from operators.run import MigrationRun, offered_disks
from operators.step import Event, Outcome, StepFailed, StepOperator
from storage_backends.base import BootableBackend, ImageStrategy, Kind, Role, StorageBackend
from wavelift.service.client import ServiceError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from operators.triggers import ResourceTrigger


class ProvisionOperator(StepOperator):
    """Replica volumes and gateway instance, or the archives that a route ends in; found, or else made."""

    def advance(self, run: MigrationRun, context: Context, event: Event) -> Outcome:
        home = run.home()
        _check_not_ended(run, home, forgotten=not run.migration.route.lands and not _is_known(run))
        with run.agent() as agent:
            offered = offered_disks(agent)
        if gone := [disk.id for disk in run.disks if "size" not in offered.get(disk.id, {})]:
            raise StepFailed(
                f"The agent cannot read {', '.join(gone)} any more.", "Start it with this disk, then clear this task."
            )
        if not run.migration.route.lands:
            return {"volumes": StoredArchives(run).volumes({disk.id: offered[disk.id]["size"] for disk in run.disks})}
        backend, volumes = run.backend(), {}
        for disk in run.disks:
            spec = run.volume_spec(disk, int(offered[disk.id]["size"]))
            volumes[disk.id] = backend.create_volume(run.labels(Role.REPLICA, disk.id), spec)
            self.log.info("disk %s -> volume %s, %d GiB", disk.id, volumes[disk.id].id, spec.size_gib)
        with run.gateway(backend):
            gateways = {disk: backend.gateway_of(volume.id) for disk, volume in volumes.items()}
        if pending := self._probe(run, backend):
            return pending
        return {
            "gateways": {gateway.id: gateway.address for gateway in gateways.values()},
            "volumes": {disk: volume.id for disk, volume in volumes.items()},
        }

    def _probe(self, run: MigrationRun, backend: BootableBackend) -> ResourceTrigger | None:
        """Where nobody knows yet what images the account may make, the snapshot of an empty volume tells."""
        boot = run.disks[0].id
        labels = run.labels(Role.CLONE, boot)
        strategy = backend.image_strategy()
        if strategy is None:
            probe = backend.snapshot(run.volume(backend, boot).id, labels)
            if pending := self.wait_for(run, [probe]):
                return pending
            strategy = backend.image_strategy()
        for probe in backend.list(labels, Kind.SNAPSHOT):
            backend.delete(probe)
        self.log.info("image strategy: %s", strategy)
        if strategy is ImageStrategy.DONOR and (reasons := backend.check_target(run.instance_spec("", 0))):
            raise StepFailed(" ".join(reasons), "Correct the cloud connection, then clear this task.")
        return None


class RunEnded(StepFailed):
    """What this run made is kept or gone; it cannot begin once more under the same name."""

    default_code = "run_ended"


def _is_known(run: MigrationRun) -> bool:
    """Whether the agent has a generation of it to build on; at the end of a run it forgets all."""
    try:
        run.committed()
    except ServiceError as error:
        if error.http_status != 404:
            raise
        return False
    return True


def _check_not_ended(run: MigrationRun, backend: StorageBackend, *, forgotten: bool) -> None:
    """A run whose volumes are gone while its results are kept has ended; new work beside them would mix the two. So has
    one whose archives are kept as its results when the agent has `forgotten` it."""
    left = backend.list(run.labels())
    replica = [each for each in left if each.kind is Kind.VOLUME and each.tag("role") == Role.REPLICA]
    results = [each for each in left if each.kind is Kind.SNAPSHOT or each.tag("role") == Role.TARGET]
    if results and (forgotten or not replica):
        kept = ", ".join(f"{each.kind.value} {each.id}" for each in results)
        raise RunEnded(f"The run {run.key} has ended and keeps {kept}.", "Trigger a new run.")
