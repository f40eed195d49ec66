"""What the instance starts from: an image of the prepared clones, or a donor that holds them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from operators.run import MigrationRun
from operators.step import Event, Outcome, StepFailed, StepOperator
from storage_backends.base import BootableBackend, Firmware, ImageStrategy, Kind, Resource, Role
from storage_backends.errors import NotFound
from wavelift.manifest.schema import Keep
from wavelift.service.jobs import JobState

if TYPE_CHECKING:
    from airflow.sdk import Context

    from operators.triggers import JobTrigger, ResourceTrigger

# Tag of a donor: the clone whose content its system disk holds.
HOLDS = "holds"
# Tag of the boot disk's clone: what starts the system on it.
FIRMWARE = "firmware"


class ImageOperator(StepOperator):
    """Snapshot the clones, make the image, delete the clones: the snapshots hold everything. Where the account may not
    do that, write the boot disk's clone over a donor's system disk and give the donor the other clones."""

    def advance(self, run: MigrationRun, context: Context, event: Event) -> Outcome:
        backend = run.backend()
        generation = run.latest_generation(backend)
        donors = backend.list(run.labels(Role.TARGET, generation=generation), Kind.INSTANCE)
        strategy = ImageStrategy.DONOR if donors else backend.image_strategy()
        if strategy is None:
            raise StepFailed(
                "Nothing in this account tells what images it may make.",
                "Set image_strategy in the extra of the cloud connection.",
            )
        if strategy is ImageStrategy.DONOR:
            return self._on_donor(run, backend, generation, event)
        snapshots = self._snapshots(run, backend, generation, {})
        image = self._image(run, backend, generation, snapshots)
        if not isinstance(image, Resource):
            return image
        for clone in backend.list(run.labels(Role.CLONE), Kind.VOLUME):
            backend.delete(clone)
        return {
            "generation": generation,
            "strategy": strategy.value,
            "image": image.id,
            "snapshots": {disk: snapshot.id for disk, snapshot in snapshots.items()},
        }

    def _on_donor(self, run: MigrationRun, backend: BootableBackend, generation: int, event: Event) -> Outcome:
        labels = run.labels(Role.TARGET, generation=generation)
        boot = run.disks[0]
        if _firmware(run, backend, generation) is Firmware.UEFI:
            raise StepFailed(
                f"{run.key} boots by UEFI, and what this account may write over is an instance that boots by BIOS.",
                "Ask Alibaba Cloud to let this account make images of data disks' snapshots, and clear this task.",
            )
        size = run.snapshots(backend, Role.REPLICA, generation)[boot.id].size_gib
        donor = backend.create_donor(labels, run.instance_spec("", size))
        disk = backend.donor_disk(donor, labels)
        if not donor.tag(HOLDS):
            pending = self._transfer(run, backend, generation, donor, disk, event)
            if pending is not None:
                return pending
        if backend.donor_disk(donor, labels).attached_to != donor.id:
            backend.detach(disk.id)
        # Waits as well where an earlier try has asked for it.
        backend.attach(disk.id, donor.id, bootable=True)
        result: dict[str, Any] = {"generation": generation, "strategy": ImageStrategy.DONOR.value}
        if Keep.IMAGE in run.migration.keep:
            snapshots = self._snapshots(run, backend, generation, {boot.id: disk})
            image = self._image(run, backend, generation, snapshots)
            if not isinstance(image, Resource):
                return image
            result |= {"image": image.id, "snapshots": {name: each.id for name, each in snapshots.items()}}
        self._give(run, backend, generation, donor)
        for spent in backend.list(run.labels(Role.CLONE, boot.id), Kind.VOLUME):
            backend.delete(spent)
        return {**result, "instance": donor.id}

    def _transfer(
        self,
        run: MigrationRun,
        backend: BootableBackend,
        generation: int,
        donor: Resource,
        disk: Resource,
        event: Event,
    ) -> JobTrigger | None:
        """The clone's content onto the donor's disk, which lies on a gateway meanwhile."""
        boot = run.disks[0].id
        clone = _clone(run, backend, boot, generation)
        if disk.attached_to == donor.id:
            backend.detach(disk.id)
        name = hashlib.sha256(f"{clone.id}/{disk.id}".encode()).hexdigest()[:8]
        key = run.job_key(generation, f"transfer-{name}")
        spec = {
            "kind": "transfer",
            "migration": run.key,
            "generation": generation,
            "disks": [{"disk": boot, "volume": clone.id, "onto": disk.id}],
        }
        with run.gateways(backend).serving({"clone": clone.id, "donor": disk.id}) as service:
            status = self.job(service, key, spec, event)
        if status.state is not JobState.SUCCEEDED:
            return self.wait_for_gateway(run, key)
        backend.mark(donor, HOLDS, clone.id)
        return None

    def _give(self, run: MigrationRun, backend: BootableBackend, generation: int, donor: Resource) -> None:
        """The clones of the data disks, one after the other: that is the order in which the guest sees them."""
        for disk in run.disks[1:]:
            for clone in backend.list(run.labels(Role.CLONE, disk.id, generation), Kind.VOLUME):
                backend.attach(clone.id, donor.id)
                backend.give(clone.id)
                # Once given it is not listed any more; should a list lag behind, nobody takes it for a spent clone.
                backend.mark(clone, "role", Role.TARGET)
        if (there := len(backend.disks_of(donor.id))) != len(run.disks):
            raise NotFound(
                f"Instance {donor.id} has {there} disks, and {run.key} has {len(run.disks)}.",
                "Clear the task driver_inject and run it again.",
            )

    def _snapshots(
        self, run: MigrationRun, backend: BootableBackend, generation: int, instead: Mapping[str, Resource]
    ) -> dict[str, Resource]:
        """Of the clones, or of what holds their content instead; the boot disk's first."""
        known = run.snapshots(backend, Role.PREPARED, generation)
        snapshots = {}
        for disk in run.disks:
            if (found := known.get(disk.id)) is None:
                volume = instead.get(disk.id) or _clone(run, backend, disk.id, generation)
                found = backend.snapshot(volume.id, run.labels(Role.PREPARED, disk.id, generation))
            snapshots[disk.id] = found
        return snapshots

    def _image(
        self, run: MigrationRun, backend: BootableBackend, generation: int, snapshots: Mapping[str, Resource]
    ) -> Resource | ResourceTrigger:
        ordered = list(snapshots.values())
        if pending := self.wait_for(run, ordered):
            return pending
        labels = run.labels(Role.PREPARED, generation=generation)
        image = backend.create_image(labels, ordered, _firmware(run, backend, generation))
        return self.wait_for(run, [image]) or image


def _firmware(run: MigrationRun, backend: BootableBackend, generation: int) -> Firmware:
    """BIOS once the clone is gone: the image is there then, and is not made anew."""
    clones = backend.list(run.labels(Role.CLONE, run.disks[0].id, generation), Kind.VOLUME)
    return Firmware(next((clone.tag(FIRMWARE) for clone in clones), "") or Firmware.BIOS)


def _clone(run: MigrationRun, backend: BootableBackend, disk: str, generation: int) -> Resource:
    for clone in backend.list(run.labels(Role.CLONE, disk, generation), Kind.VOLUME):
        return clone
    raise NotFound(
        f"Disk {disk} of {run.key} has no prepared clone of generation {generation}.",
        "Clear the task driver_inject and run it again.",
    )
