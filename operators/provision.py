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
        with run.agent() as agent:
            offered = offered_disks(agent)
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


def wait_for_volumes(gateway: ServiceClient, volumes: set[str], backend: BootableBackend, instance: str) -> None:
    """Until the gateway answers and sees every volume. Raises ServiceUnreachable or StepFailed."""
    deadline = time.monotonic() + _GATEWAY_SECONDS
    while True:
        try:
            missing = volumes - {volume["id"] for volume in gateway.get("/v1/volumes")}
            if not missing:
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
        raise StepFailed(
            f"The gateway instance {gateway} has stopped. Its last console lines:\n{tail(backend.console(gateway))}\n",
            "Check gateway_image and gateway_command in the cloud connection.",
        )
