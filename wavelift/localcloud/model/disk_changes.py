"""Disks that change under their id: grown, of another class, put back to where they began or to a snapshot."""

import logging

from wavelift.localcloud.engine import Task
from wavelift.localcloud.entities import Disk, Image, Instance, Moving, Snapshot
from wavelift.localcloud.errors import ApiError, dry_run_passed, invalid
from wavelift.localcloud.model import sizes, stock
from wavelift.localcloud.model.context import Context, disk_lock, find, instance_lock
from wavelift.localcloud.model.disks import (
    check_no_snapshot_under_way,
    ready_snapshot,
    wrong_disk_status,
    wrong_instance_status,
)
from wavelift.localcloud.model.tasks import done_at_once
from wavelift.localcloud.runtimes.base import RuntimeFailure
from wavelift.localcloud.runtimes.processes import alive
from wavelift.localcloud.runtimes.qmp import QmpError
from wavelift.localcloud.states import DiskStatus, InstanceStatus
from wavelift.localcloud.store import Token, Transaction

LOG = logging.getLogger(__name__)

RESTING = {DiskStatus.AVAILABLE, DiskStatus.IN_USE}


class DiskChanges:
    def __init__(self, context: Context) -> None:
        self._context = context
        context.engine.register(DiskStatus.REINITING, Task(Disk, self._rewrite, self._rewritten))

    def resize(self, disk_id: str, size: int, online: bool, token: Token | None) -> None:
        """Offline, a running instance sees the new size when it starts again."""
        with self._context.locks.hold(disk_lock(disk_id)):
            with self._context.store.transaction() as tx:
                if tx.recall(token) is not None:
                    return
                disk = find(tx, Disk, disk_id)
                kind = sizes.Class(disk.category, disk.performance_level)
                self._check_resize(tx, disk, online)
                kind.check_larger(disk.type == "system", size, disk.size)
                if not self._context.files.can_hold(sizes.to_bytes(size)):
                    raise ApiError("InvalidDiskSize.TooLarge", f"This host has no files of {size} GiB.")
            self._context.files.grow(self._context.files.disk(disk_id), sizes.to_bytes(size))
            with self._context.store.transaction() as tx:
                disk = find(tx, Disk, disk_id)
                disk.size = size
                tx.put(disk)
                tx.remember(token, disk_id)
            if online:
                self._tell(disk)

    @staticmethod
    def _check_resize(tx: Transaction, disk: Disk, online: bool) -> None:
        if disk.status not in ({DiskStatus.IN_USE} if online else RESTING):
            raise wrong_disk_status(disk)
        check_no_snapshot_under_way(tx, disk)
        if online and disk.category == "cloud":
            raise ApiError(
                "InvalidDiskCategory.NotSupported", "The specified disk category does not support resize online."
            )
        if disk.instance:
            instance = find(tx, Instance, disk.instance)
            allowed = {InstanceStatus.RUNNING} if online else {InstanceStatus.RUNNING, InstanceStatus.STOPPED}
            if instance.status not in allowed:
                raise wrong_instance_status(instance)

    def _tell(self, disk: Disk) -> None:
        with self._context.locks.hold(instance_lock(disk.instance)):
            with self._context.store.transaction() as tx:
                instance = find(tx, Instance, disk.instance)
            if not alive(instance.pid, instance.ticks):
                return
            try:
                self._context.runtime(instance).resize(instance, disk, sizes.to_bytes(disk.size))
            except (OSError, QmpError, RuntimeFailure):
                LOG.exception("%s does not see that %s has grown until it starts again", instance.id, disk.id)

    def modify_spec(
        self, disk_id: str, category: str | None, level: str | None, iops: int | None, dry_run: bool
    ) -> str:
        """The task that a change of category is; it takes no time here."""
        with self._context.store.transaction() as tx:
            disk = find(tx, Disk, disk_id)
            if disk.status not in RESTING:
                raise wrong_disk_status(disk)
            if disk.category == "cloud":
                raise ApiError("OperationDenied", "The type of the disk does not support the operation.")
            if level is not None and (category or disk.category) != sizes.ESSD:
                raise invalid("PerformanceLevel", "Only cloud_essd disks have one.")
            kind = sizes.Class.of(category or disk.category, level or disk.performance_level, "Disk")
            if kind.category == "cloud":
                raise ApiError("InvalidDiskCategory.NotSupported", "No disk becomes a basic disk.")
            if level == "PL0" and disk.performance_level not in {"", "PL0"}:
                raise ApiError("OperationDenied", "A disk does not go down to PL0.")
            low, high = sizes.RANGES[kind.category, kind.level]
            if not low <= disk.size <= high:
                raise ApiError("InvalidDiskSize.NotSupported", f"A {kind} disk has {low} to {high} GiB.")
            if iops is not None:
                kind.check_extras(disk.size, iops)
            if dry_run:
                raise dry_run_passed()
            task = done_at_once(tx, "ModifyDiskSpec", disk.id) if kind.category != disk.category else ""
            disk.category, disk.performance_level = kind.category, kind.level
            disk.provisioned_iops = iops if iops is not None else 0
            disk.bursting = disk.bursting and kind.category == "cloud_auto"
            tx.put(disk)
            return task

    def reinit(self, disk_id: str, auto_start: bool) -> None:
        with self._context.store.transaction() as tx:
            disk = find(tx, Disk, disk_id)
            if disk.status is not DiskStatus.IN_USE:
                raise wrong_disk_status(disk)
            instance = find(tx, Instance, disk.instance)
            if instance.status is not InstanceStatus.STOPPED or not instance.started_at:
                raise wrong_instance_status(instance)
            check_no_snapshot_under_way(tx, disk)
            if disk.type == "system" and disk.image and tx.get(Image, disk.image) is None:
                raise ApiError(
                    "InvalidDiskId.OperationNotSupported", "The operation is not supported due to image not exist."
                )
            if disk.source_snapshot and tx.get(Snapshot, disk.source_snapshot) is None:
                raise ApiError("InvalidSourceSnapshot", "The snapshot the disk was created from has been deleted.")
            if auto_start:
                stock.check(tx, self._context.options.memory, instance)
            disk.resetting, disk.start_after = "", auto_start
            self._context.engine.request(tx, disk, DiskStatus.REINITING)

    def reset(self, disk_id: str, snapshot_id: str, dry_run: bool) -> None:
        with self._context.store.transaction() as tx:
            disk = find(tx, Disk, disk_id)
            snapshot = ready_snapshot(tx, snapshot_id)
            if disk.status not in RESTING:
                raise wrong_disk_status(disk)
            if disk.instance:
                instance = find(tx, Instance, disk.instance)
                if instance.status is not InstanceStatus.STOPPED:
                    raise wrong_instance_status(instance)
            if snapshot.disk != disk.id or snapshot.source_snapshot:
                raise ApiError(
                    "InvalidParameter.Mismatch", "The specified snapshot is not created from the specified disk."
                )
            check_no_snapshot_under_way(tx, disk)
            if dry_run:
                raise dry_run_passed()
            disk.resetting, disk.start_after = snapshot.id, False
            self._context.engine.request(tx, disk, DiskStatus.REINITING)

    def _rewrite(self, identifier: str) -> None:
        """The old content stays until the new one is whole."""
        files = self._context.files
        with self._context.locks.hold(disk_lock(identifier)):
            with self._context.store.transaction() as tx:
                disk = find(tx, Disk, identifier)
            content = disk.resetting or disk.source_snapshot
            fresh = files.disk(f"{disk.id}.next")
            files.create(fresh, sizes.to_bytes(disk.size), files.snapshot(content) if content else None)
            fresh.replace(files.disk(disk.id))

    def _rewritten(self, tx: Transaction, entity: Moving, failed: bool) -> None:
        disk = find(tx, Disk, entity.id)
        start = disk.start_after and not failed
        disk.resetting, disk.start_after = "", False
        if not disk.instance:
            disk.become(DiskStatus.AVAILABLE)
        tx.put(disk)
        if start:
            instance = find(tx, Instance, disk.instance)
            if instance.status is InstanceStatus.STOPPED and stock.may_start(
                tx, self._context.options.memory, instance
            ):
                self._context.engine.request(tx, instance, InstanceStatus.STARTING)
