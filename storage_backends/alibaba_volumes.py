"""Volumes and snapshots of Alibaba Cloud: EBS disks made, moved between instances, copied and deleted.

ClientToken exists on CreateDisk and CreateSnapshot only; everything else reads the state before it acts.
"""

from __future__ import annotations

from collections.abc import Callable

from alibabacloud_ecs20140526 import models

from storage_backends.alibaba_inventory import Inventory, tagged
from storage_backends.base import Kind, Labels, Resource, VolumeSpec
from storage_backends.ecs import EcsApi
from storage_backends.errors import Conflict, Unavailable
from storage_backends.settings import AlibabaSettings


class Volumes:
    def __init__(self, settings: AlibabaSettings, api: EcsApi, inventory: Inventory) -> None:
        self._settings = settings
        self._api = api
        self._inventory = inventory

    def create_volume(self, labels: Labels, spec: VolumeSpec) -> Resource:
        return self._volume(labels, spec, snapshot_id=None)

    def clone(self, snapshot: Resource, labels: Labels, spec: VolumeSpec) -> Resource:
        return self._volume(labels, spec, snapshot_id=snapshot.id)

    def _volume(self, labels: Labels, spec: VolumeSpec, snapshot_id: str | None) -> Resource:
        def create(token: str, name: str) -> str:
            request = models.CreateDiskRequest(
                region_id=self._settings.region,
                zone_id=self._settings.zone,
                disk_name=name,
                size=spec.size_gib,
                disk_category=spec.category,
                performance_level=spec.performance_level,
                snapshot_id=snapshot_id,
                client_token=token,
                tag=tagged(models.CreateDiskRequestTag, labels),
            )
            return str(self._api.call("create_disk", request)["DiskId"])

        return self._inventory.settled(self._inventory.once(Kind.VOLUME, labels, create))

    def snapshot(self, volume_id: str, labels: Labels) -> Resource:
        def create(token: str, name: str) -> str:
            request = models.CreateSnapshotRequest(
                disk_id=volume_id,
                snapshot_name=name,
                client_token=token,
                tag=tagged(models.CreateSnapshotRequestTag, labels),
            )
            return str(self._api.call("create_snapshot", request)["SnapshotId"])

        return self._inventory.once(Kind.SNAPSHOT, labels, create)

    def attach(self, volume_id: str, instance_id: str) -> None:
        volume = self._inventory.settled(self._inventory.get(Kind.VOLUME, volume_id))
        if volume.attached_to == instance_id and volume.status == "In_use":
            return
        if volume.attached_to:
            raise Conflict(
                f"Volume {volume_id} is attached to {volume.attached_to}, not to {instance_id}.",
                "Detach it in the cloud's console, or let cleanup of the other run finish.",
            )
        request = models.AttachDiskRequest(disk_id=volume_id, instance_id=instance_id, delete_with_instance=False)
        try:
            self._api.call("attach_disk", request)
        except Conflict:
            # The reply to an earlier attempt may have been lost: then it is what was asked for, done or under way.
            if not self._inventory.becomes(Kind.VOLUME, volume_id, lambda v: v.attached_to == instance_id):
                raise
        self._inventory.until(Kind.VOLUME, volume_id, _attaching(instance_id), "attached")

    def detach(self, volume_id: str) -> None:
        volume = self._inventory.settled(self._inventory.get(Kind.VOLUME, volume_id))
        if volume.attached_to:
            request = models.DetachDiskRequest(disk_id=volume_id, instance_id=volume.attached_to)
            try:
                self._api.call("detach_disk", request)
            except Conflict:
                if not self._inventory.becomes(Kind.VOLUME, volume_id, _let_go):
                    raise
            self._inventory.until(Kind.VOLUME, volume_id, lambda v: v.status == "Available", "detached")

    def delete_volume(self, volume_id: str) -> None:
        """Raises NotFound."""
        self.detach(volume_id)
        self._api.call("delete_disk", models.DeleteDiskRequest(disk_id=volume_id))

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Conflict while an image, or a disk that is being made, needs it; a disk that was made does not."""
        self._api.call("delete_snapshot", models.DeleteSnapshotRequest(snapshot_id=snapshot_id, force=True))


def _attaching(instance_id: str) -> Callable[[Resource], bool]:
    """Is it attached? Raises Unavailable once it was under way and fell back."""
    began = False

    def reached(volume: Resource) -> bool:
        nonlocal began
        if began and not volume.attached_to:
            raise Unavailable(
                f"The cloud did not succeed in attaching volume {volume.id} to {instance_id}.",
                "The task may simply be retried.",
            )
        began = began or volume.attached_to == instance_id
        return volume.status == "In_use"

    return reached


def _let_go(volume: Resource) -> bool:
    return not volume.attached_to or volume.status == "Detaching"
