"""Disks: made, attached, detached, released."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from wavelift.localcloud.engine import Task
from wavelift.localcloud.entities import ZONES, Disk, Instance, Moving, Snapshot, new_id
from wavelift.localcloud.errors import ApiError, missing
from wavelift.localcloud.model import quotas, sizes, stock
from wavelift.localcloud.model.context import Context, disk_lock, find, instance_lock
from wavelift.localcloud.runtimes.processes import alive
from wavelift.localcloud.states import DiskStatus, InstanceStatus, SnapshotStatus
from wavelift.localcloud.store import Token, Transaction

DATA_DISKS = 16


@dataclass(frozen=True)
class DiskOrder:
    zone: str
    category: str
    level: str | None = None
    size: int | None = None
    snapshot: str | None = None
    bursting: bool = False
    provisioned_iops: int = 0
    name: str = ""
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DiskAttributes:
    """What ModifyDiskAttribute changes; None leaves a thing as it is."""

    name: str | None = None
    description: str | None = None
    delete_with_instance: bool | None = None
    delete_auto_snapshot: bool | None = None
    bursting: bool | None = None


class Disks:
    def __init__(self, context: Context) -> None:
        self._context = context
        engine = context.engine
        engine.register(DiskStatus.CREATING, Task(Disk, self._make, self._made))
        engine.register(DiskStatus.ATTACHING, Task(Disk, self._plug, self._plugged))
        engine.register(DiskStatus.DETACHING, Task(Disk, self._unplug, self._unplugged))

    def create(self, order: DiskOrder, token: Token | None) -> str:
        with self._context.store.transaction() as tx:
            if (known := tx.recall(token)) is not None:
                return known
            if order.zone not in ZONES:
                raise ApiError("InvalidZoneId.NotFound", "The specified zone does not exist.")
            kind = sizes.Class.of(order.category, order.level, "DataDisk")
            stock.check_category(self._context.options, order.zone, kind.category, "DataDisk")
            snapshot = ready_snapshot(tx, order.snapshot) if order.snapshot else None
            size = order.size if order.size is not None else snapshot.disk_size if snapshot else None
            if size is None:
                raise missing("Size")
            kind.check_data(size, "InvalidDiskSize.NotSupported")
            if order.bursting or order.provisioned_iops:
                kind.check_extras(size, order.provisioned_iops)
            if snapshot:
                sizes.check_snapshot(size, snapshot.disk_size)
            if not self._context.files.can_hold(sizes.to_bytes(size)):
                raise ApiError(
                    "InvalidDiskSize.NotSupported", f"The filesystem of this host has no files of {size} GiB."
                )
            quotas.check(tx, self._context.options.quotas, Disk)
            disk = Disk(
                id=new_id(Disk.prefix),
                created=time.time(),
                zone=order.zone,
                size=size,
                category=kind.category,
                performance_level=kind.level,
                source_snapshot=snapshot.id if snapshot else "",
                bursting=order.bursting,
                provisioned_iops=order.provisioned_iops,
                name=order.name,
                description=order.description,
                tags=order.tags,
            )
            self._context.engine.enter(tx, disk, DiskStatus.CREATING)
            tx.remember(token, disk.id)
            return disk.id

    def make_file(self, disk: Disk) -> None:
        files = self._context.files
        source = files.snapshot(disk.source_snapshot) if disk.source_snapshot else None
        files.create(files.disk(disk.id), sizes.to_bytes(disk.size), source)

    def _make(self, identifier: str) -> None:
        with self._context.store.transaction() as tx:
            disk = find(tx, Disk, identifier)
        self.make_file(disk)

    @staticmethod
    def _made(tx: Transaction, entity: Moving, failed: bool) -> None:
        """A new system disk is its instance's from the start."""
        if failed:
            return
        disk = find(tx, Disk, entity.id)
        if disk.instance:
            disk.become(DiskStatus.IN_USE)
            disk.ever_attached = True
            disk.attached_at = time.time()
            tx.put(disk)

    def attach(
        self,
        disk_id: str,
        instance_id: str,
        *,
        bootable: bool,
        credentials: bool,
        delete_with_instance: bool,
        device: str | None = None,
    ) -> None:
        with self._context.store.transaction() as tx:
            disk = find(tx, Disk, disk_id)
            instance = find(tx, Instance, instance_id)
            if disk.status is not DiskStatus.AVAILABLE:
                raise wrong_disk_status(disk)
            if instance.status not in {InstanceStatus.RUNNING, InstanceStatus.STOPPED} or instance.releasing:
                raise wrong_instance_status(instance)
            if disk.zone != instance.zone:
                raise ApiError(
                    "ResourcesNotInSameZone", f"{disk.id} is in {disk.zone}, {instance.id} is in {instance.zone}."
                )
            attached = disks_of(tx, instance.id)
            if bootable:
                self._check_bootable(disk, instance, attached, credentials)
                disk.device = "/dev/xvda"
            elif sum(other.type == "data" for other in attached) >= DATA_DISKS:
                raise ApiError("InstanceDiskLimitExceeded", f"An instance has at most {DATA_DISKS} data disks.")
            elif device in {other.device for other in attached}:
                raise ApiError("InvalidDevice.InUse", "The specified device has been occupied.")
            else:
                disk.device = device or free_device(attached)
            disk.type = "system" if bootable else "data"
            disk.instance = instance.id
            disk.delete_with_instance = delete_with_instance
            self._context.engine.request(tx, disk, DiskStatus.ATTACHING)

    @staticmethod
    def _check_bootable(disk: Disk, instance: Instance, attached: list[Disk], credentials: bool) -> None:
        if disk.original_instance != instance.id:
            raise ApiError(
                "InvalidInstance.NotOriginInstance", "A system disk goes back to the instance it came from only."
            )
        if instance.status is not InstanceStatus.STOPPED:
            raise wrong_instance_status(instance)
        if any(other.type == "system" for other in attached):
            raise ApiError("IncorrectInstanceStatus", f"{instance.id} has a system disk already.")
        if not credentials:
            raise missing("Password")

    def _plug(self, identifier: str) -> None:
        with self._context.locks.hold(disk_lock(identifier)):
            disk, instance = self._disk_and_instance(identifier)
            with self._context.locks.hold(instance_lock(instance.id)):
                if self._runs(instance.id) and disk.type == "data":
                    self._context.runtime(instance).attach(instance, disk)

    def _plugged(self, tx: Transaction, entity: Moving, failed: bool) -> None:
        disk = find(tx, Disk, entity.id)
        if failed:
            disk.instance = disk.device = ""
        else:
            disk.ever_attached = True
            disk.attached_at = time.time()
        tx.put(disk)

    def detach(self, disk_id: str, instance_id: str) -> None:
        with self._context.store.transaction() as tx:
            disk = find(tx, Disk, disk_id)
            instance = find(tx, Instance, instance_id)
            if disk.status is not DiskStatus.IN_USE:
                raise wrong_disk_status(disk)
            if disk.instance != instance.id:
                raise ApiError("InvalidParameter.InstanceMismatch", f"{disk.id} is not attached to {instance.id}.")
            allowed = {InstanceStatus.STOPPED}
            if disk.type == "data":
                allowed.add(InstanceStatus.RUNNING)
            if instance.status not in allowed or instance.releasing:
                raise wrong_instance_status(instance)
            self._context.engine.request(tx, disk, DiskStatus.DETACHING)

    def _unplug(self, identifier: str) -> None:
        disk, instance = self._disk_and_instance(identifier)
        with self._context.locks.hold(instance_lock(instance.id)):
            if self._runs(instance.id):
                self._context.runtime(instance).detach(instance, disk)

    def _unplugged(self, tx: Transaction, entity: Moving, failed: bool) -> None:
        if not failed:
            disk = find(tx, Disk, entity.id)
            let_go(disk)
            tx.put(disk)

    def delete(self, identifier: str) -> None:
        """An unknown id is no error."""
        with self._context.locks.hold(disk_lock(identifier)), self._context.store.transaction() as tx:
            disk = tx.get(Disk, identifier)
            if disk is None:
                return
            if disk.status is not DiskStatus.AVAILABLE:
                raise wrong_disk_status(disk)
            check_no_snapshot_under_way(tx, disk)
            self.release(tx, disk)

    def release(self, tx: Transaction, disk: Disk) -> None:
        tx.remove(disk)
        tx.after_commit.append(lambda: self._context.files.remove(self._context.files.disk(disk.id)))

    def modify(self, identifiers: Sequence[str], change: DiskAttributes) -> None:
        with self._context.store.transaction() as tx:
            for disk in [find(tx, Disk, identifier) for identifier in identifiers]:
                if change.bursting:
                    sizes.Class(disk.category, disk.performance_level).check_extras(disk.size, 0)
                for name, value in vars(change).items():
                    if value is not None:
                        setattr(disk, name, value)
                tx.put(disk)

    def all(self) -> list[Disk]:
        with self._context.store.transaction() as tx:
            return tx.look(Disk)

    def _disk_and_instance(self, identifier: str) -> tuple[Disk, Instance]:
        with self._context.store.transaction() as tx:
            disk = find(tx, Disk, identifier)
            return disk, find(tx, Instance, disk.instance)

    def _runs(self, instance_id: str) -> bool:
        with self._context.store.transaction() as tx:
            instance = find(tx, Instance, instance_id)
        return alive(instance.pid, instance.ticks)


def ready_snapshot(tx: Transaction, identifier: str) -> Snapshot:
    snapshot = find(tx, Snapshot, identifier)
    if snapshot.status is not SnapshotStatus.ACCOMPLISHED:
        raise ApiError("InvalidSnapshotId.NotReady", f"The snapshot is {snapshot.status.value}.")
    return snapshot


def check_no_snapshot_under_way(tx: Transaction, disk: Disk) -> None:
    if any(s.disk == disk.id and s.status is SnapshotStatus.PROGRESSING for s in tx.look(Snapshot)):
        raise _under_way(disk)


def check_not_being_copied(tx: Transaction, disks: Sequence[Disk]) -> None:
    """Once it is copied, the disk may go: what is left of its snapshot's passage is waiting."""
    copied = {snapshot.disk for snapshot in tx.look(Snapshot) if is_being_copied(snapshot)}
    for disk in disks:
        if disk.id in copied:
            raise _under_way(disk)


def is_being_copied(snapshot: Snapshot) -> bool:
    """By a request of its own: it is not the copy of another, or part of an import."""
    own = not snapshot.source_snapshot and not snapshot.maker
    return own and snapshot.status is SnapshotStatus.PROGRESSING and not snapshot.copied


def _under_way(disk: Disk) -> ApiError:
    return ApiError("DiskCreatingSnapshot", f"A snapshot of {disk.id} is not completed yet.")


def disks_of(tx: Transaction, instance_id: str) -> list[Disk]:
    """Attached, attaching and detaching ones; the system disk first, the others by device name."""
    attached = [find(tx, Disk, disk.id) for disk in tx.look(Disk) if disk.instance == instance_id]
    return sorted(attached, key=lambda disk: (disk.type != "system", disk.device))


def free_device(attached: list[Disk]) -> str:
    used = {disk.device for disk in attached}
    return next(name for letter in "bcdefghijklmnopqrstuvwxyz" if (name := f"/dev/xvd{letter}") not in used)


def let_go(disk: Disk) -> None:
    disk.instance = disk.device = ""
    disk.delete_with_instance = False
    disk.detached_at = time.time()


def wrong_disk_status(disk: Disk) -> ApiError:
    return ApiError("IncorrectDiskStatus", f"The current status of {disk.id}, {disk.status.value}, does not allow it.")


def wrong_instance_status(instance: Instance) -> ApiError:
    code = "IncorrectInstanceStatus"
    if instance.status is InstanceStatus.PENDING:
        code += ".Initializing"
    return ApiError(code, f"The current status of {instance.id}, {instance.status.value}, does not allow it.", 403)
