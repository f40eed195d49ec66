"""Volumes and snapshots of Alibaba Cloud: EBS disks made, moved between instances, copied and deleted.

ClientToken exists on CreateDisk and CreateSnapshot only; everything else reads the state before it acts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alibabacloud_ecs20140526 import models

from storage_backends.alibaba.donors import bootable_password
from storage_backends.alibaba.ecs import EcsApi
from storage_backends.alibaba.inventory import Inventory, client_token, tagged
from storage_backends.alibaba.settings import AlibabaSettings
from storage_backends.base import Kind, Labels, Resource, State, VolumeSpec
from storage_backends.errors import Conflict, InvalidRequest, NotFound, Unavailable
from wavelift.manifest.plan import smallest_volume_gib


class Volumes:
    def __init__(self, settings: AlibabaSettings, api: EcsApi, inventory: Inventory) -> None:
        self._settings = settings
        self._api = api
        self._inventory = inventory

    def create_volume(self, labels: Labels, spec: VolumeSpec) -> Resource:
        return self._volume(labels, fitting(spec), snapshot_id=None)

    def clone(self, snapshot: Resource, labels: Labels, spec: VolumeSpec) -> Resource:
        return self._volume(labels, fitting(spec, snapshot.size_gib), snapshot_id=snapshot.id)

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

    def attach(self, volume_id: str, instance_id: str, *, bootable: bool = False) -> None:
        """`bootable`: a system disk goes back to the instance it came with, and will be deleted with it."""
        volume = self._inventory.settled(self._inventory.get(Kind.VOLUME, volume_id))
        if volume.attached_to == instance_id and volume.status == "In_use":
            return
        if volume.attached_to:
            raise Conflict(
                f"Volume {volume_id} is attached to {volume.attached_to}, not to {instance_id}.",
                "Detach it in the cloud's console, or let cleanup of the other run finish.",
            )
        request = models.AttachDiskRequest(
            disk_id=volume_id,
            instance_id=instance_id,
            bootable=bootable or None,
            password=bootable_password() if bootable else None,
            delete_with_instance=bootable,
        )
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

    def resize(self, volume_id: str, size_gib: int) -> Resource:
        """Grow it to `size_gib`; does nothing where it has that size. Raises InvalidRequest where it is larger.

        Attached to a running instance, that sees the new size at once.
        """
        volume = self._inventory.settled(self._inventory.get(Kind.VOLUME, volume_id))
        if volume.size_gib > size_gib:
            raise InvalidRequest(
                f"Volume {volume_id} has {volume.size_gib} GiB already, more than {size_gib}: volumes only grow.",
                f"Ask for {volume.size_gib} GiB or more.",
            )
        if volume.size_gib == size_gib:
            return volume
        online = bool(volume.attached_to) and (
            self._inventory.get(Kind.INSTANCE, volume.attached_to).state is State.READY
        )
        request = models.ResizeDiskRequest(
            disk_id=volume_id,
            new_size=size_gib,
            type="online" if online else "offline",
            client_token=client_token("resize", volume_id, size_gib, online),
        )
        try:
            self._api.call("resize_disk", request)
        except (Conflict, InvalidRequest):
            # Somebody else may just have done it, and the list shows it as it was.
            if not self._inventory.becomes(Kind.VOLUME, volume_id, lambda now: now.size_gib >= size_gib):
                raise
        return self._inventory.until(Kind.VOLUME, volume_id, lambda now: now.size_gib >= size_gib, "resized")

    def prune_snapshots(self, labels: Labels, keep: int) -> list[Resource]:
        """Delete all but the last `keep` generations of each volume, and what failed; return what was deleted.

        What is under way stays, and so does what an image, or a volume that is being made, uses.
        """
        if keep < 1:
            raise InvalidRequest(f"{keep} snapshots are to be kept.", "Keep at least 1: the latest generation.")
        groups: dict[tuple[str, ...], list[Resource]] = {}
        for each in self._inventory.list(labels, Kind.SNAPSHOT):
            named = tuple(each.tag(name) for name in ("wave", "migration", "run", "role", "disk"))
            groups.setdefault(named, []).append(each)
        doomed = [each for group in groups.values() for each in _superfluous(group, keep)]
        return [each for each in doomed if self._delete_unused(each)]

    def _delete_unused(self, snapshot: Resource) -> bool:
        """False while something uses it. Volumes that were made from it do not."""
        request = models.DeleteSnapshotRequest(snapshot_id=snapshot.id)
        try:
            self._api.call("delete_snapshot", request)
        except NotFound:
            return True
        except Conflict:
            if self._inventory.being_made_from(snapshot.id):
                return False
            try:
                self.delete_snapshot(snapshot.id)
            except Conflict:
                return False
        return True

    def delete_volume(self, volume_id: str) -> None:
        """Raises NotFound."""
        self.detach(volume_id)
        self._api.call("delete_disk", models.DeleteDiskRequest(disk_id=volume_id))

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Conflict while an image, or a disk that is being made, needs it; a disk that was made does not."""
        self._api.call("delete_snapshot", models.DeleteSnapshotRequest(snapshot_id=snapshot_id, force=True))


def fitting(spec: VolumeSpec, at_least_gib: int = 0) -> VolumeSpec:
    """The same volume, no smaller than `at_least_gib` and than its category and performance level are made."""
    smallest = smallest_volume_gib(spec.category, spec.performance_level)
    return VolumeSpec(max(spec.size_gib, smallest, at_least_gib), spec.category, spec.performance_level)


def _superfluous(snapshots: Sequence[Resource], keep: int) -> list[Resource]:
    """All of one volume: the usable ones but the last `keep`, and those that failed."""
    usable = [each for each in snapshots if each.state is State.READY]
    usable.sort(key=lambda each: int(each.tag("generation") or 0))
    return usable[:-keep] + [each for each in snapshots if each.state is State.FAILED]


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
