"""The gateway, and a volume for each disk, attached to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from operators.checks import tail
from operators.run import MigrationRun, offered_disks
from operators.step import Event, Outcome, StepFailed, StepOperator
from storage_backends.base import BootableBackend, Kind, Role, State
from wavelift.service.client import ServiceClient, ServiceUnreachable

if TYPE_CHECKING:
    from airflow.sdk import Context

_GATEWAY_SECONDS = 300.0


class ProvisionOperator(StepOperator):
    """Gateway instance and replica volumes; found where they exist, made where they do not."""

    def advance(self, run: MigrationRun, context: Context, event: Event) -> Outcome:
        backend = run.backend()
        _check_not_ended(run, backend)
        with run.agent() as agent:
            offered = offered_disks(agent)
        if gone := [disk.id for disk in run.disks if "size" not in offered.get(disk.id, {})]:
            raise StepFailed(
                f"The agent cannot read {', '.join(gone)} any more.", "Start it with this disk, then clear this task."
            )
        gateway = backend.ensure_gateway(run.labels(Role.GATEWAY), run.migration.target.vswitch)
        volumes = {}
        for disk in run.disks:
            spec = run.volume_spec(disk, int(offered[disk.id]["size"]))
            volume = backend.create_volume(run.labels(Role.REPLICA, disk.id), spec)
            backend.attach(volume.id, gateway.id)
            volumes[disk.id] = volume.id
            self.log.info("disk %s -> volume %s, %d GiB", disk.id, volume.id, spec.size_gib)
        with run.gateway(backend) as service:
            wait_for_volumes(service, set(volumes.values()), backend, gateway.id)
        return {"gateway": gateway.id, "gateway_address": gateway.address, "volumes": volumes}


class RunEnded(StepFailed):
    """What this run made is kept or gone; it cannot begin once more under the same name."""

    default_code = "run_ended"


class GatewayStopped(StepFailed):
    """The gateway instance runs no more."""

    default_code = "gateway_stopped"


def _check_not_ended(run: MigrationRun, backend: BootableBackend) -> None:
    """A run whose volumes are gone while its results are kept has ended; new work beside them would mix the two."""
    left = backend.list(run.labels())
    replica = [each for each in left if each.kind is Kind.VOLUME and each.tag("role") == Role.REPLICA]
    results = [each for each in left if each.kind is Kind.SNAPSHOT or each.tag("role") == Role.TARGET]
    if results and not replica:
        kept = ", ".join(f"{each.kind.value} {each.id}" for each in results)
        raise RunEnded(f"The run {run.key} has ended and keeps {kept}.", "Trigger a new run.")


def wait_for_volumes(gateway: ServiceClient, volumes: set[str], backend: BootableBackend, instance: str) -> None:
    """Until the gateway answers and sees every volume. Raises ServiceUnreachable or StepFailed."""
    deadline = time.monotonic() + _GATEWAY_SECONDS
    while True:
        try:
            missing = volumes - {volume["id"] for volume in gateway.get("/v1/volumes")}
            if not missing:
                gateway.check_version()
                return
            if time.monotonic() > deadline:
                unseen = ", ".join(sorted(missing))
                raise StepFailed(
                    f"The gateway at {gateway.base_url} does not see {unseen} after {_GATEWAY_SECONDS:.0f} s.",
                    "Look at the instance in the cloud's console: are the volumes attached to it?",
                )
        except ServiceUnreachable:
            _check_running(backend, instance)
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def _check_running(backend: BootableBackend, gateway: str) -> None:
    """Raises StepFailed with the last console lines when the gateway instance has stopped."""
    now = backend.get(Kind.INSTANCE, gateway)
    if now.state is State.STOPPED:
        raise GatewayStopped(
            f"The gateway instance {gateway} has stopped. Its last console lines:\n{tail(backend.console(gateway))}\n",
            "Check gateway_image and gateway_command in the cloud connection.",
        )
