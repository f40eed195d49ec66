"""What may be changed about an instance: its names, its type, its system disk."""

from dataclasses import dataclass

from wavelift.localcloud.entities import INSTANCE_TYPES, Disk, Image, Instance
from wavelift.localcloud.errors import ApiError, dry_run_passed
from wavelift.localcloud.model import names, sizes
from wavelift.localcloud.model.context import Context, find
from wavelift.localcloud.model.disks import Disks, check_not_being_copied, disks_of, wrong_instance_status
from wavelift.localcloud.model.orders import OrderedDisk, boot_mode, new_system_disk
from wavelift.localcloud.states import DiskStatus, ImageStatus, InstanceStatus
from wavelift.localcloud.store import Token, Transaction

STEADY = frozenset({InstanceStatus.RUNNING, InstanceStatus.STOPPED})


@dataclass(frozen=True)
class Changes:
    """None leaves a thing as it is."""

    name: str | None = None
    description: str | None = None
    host_name: str | None = None
    user_data: str | None = None
    password: bool = False


class Attributes:
    def __init__(self, context: Context, disks: Disks) -> None:
        self._context = context
        self._disks = disks

    def modify(self, identifier: str, changes: Changes) -> None:
        with self._context.store.transaction() as tx:
            instance = find(tx, Instance, identifier)
            status = instance.status
            if changes.host_name is not None and status in {InstanceStatus.PENDING, InstanceStatus.STARTING}:
                raise wrong_instance_status(instance)
            if changes.password and status is InstanceStatus.STARTING:
                raise wrong_instance_status(instance)
            if changes.user_data is not None and status not in STEADY:
                raise wrong_instance_status(instance)
            if changes.name is not None:
                instance.name = changes.name
            if changes.host_name is not None:
                names.check_host_name(changes.host_name)
                instance.host_name = changes.host_name
            if changes.description is not None:
                instance.description = changes.description
            if changes.user_data is not None:
                instance.user_data = changes.user_data
            tx.put(instance)

    def resize(self, identifier: str, kind: str | None, bandwidth: int | None, dry_run: bool) -> None:
        """Another type, or another bandwidth: one at a time."""
        if (kind is None) == (bandwidth is None):
            raise ApiError("InvalidParameter.Conflict", "Either InstanceType or InternetMaxBandwidthOut is changed.")
        with self._context.store.transaction() as tx:
            instance = find(tx, Instance, identifier)
            allowed = {InstanceStatus.STOPPED} if kind is not None else STEADY
            if instance.status not in allowed or instance.releasing:
                raise wrong_instance_status(instance)
            if kind is not None:
                if kind not in INSTANCE_TYPES:
                    raise ApiError("InvalidInstanceType.ValueNotSupported", f"There is no instance type {kind!r}.")
                instance.type = kind
            if bandwidth is not None:
                instance.bandwidth = bandwidth
            if dry_run:
                raise dry_run_passed()
            tx.put(instance)

    def allocate_address(self, identifier: str) -> str:
        with self._context.store.transaction() as tx:
            instance = find(tx, Instance, identifier)
            if instance.status not in STEADY or instance.releasing:
                raise wrong_instance_status(instance)
            if instance.public_address:
                raise ApiError("AllocatedAlready", f"{instance.id} has a public IP address already.")
            if not instance.bandwidth:
                raise ApiError("OperationDenied", f"The outbound bandwidth of {instance.id} is 0.")
            instance.public = True
            tx.put(instance)
            return instance.address

    def replace_system_disk(self, identifier: str, image_id: str, size: int | None, token: Token | None) -> str:
        """The old system disk is gone at once; the new one is the instance's from the start, and soon In_use."""
        with self._context.store.transaction() as tx:
            if (known := tx.recall(token)) is not None:
                return known
            instance, image = find(tx, Instance, identifier), find(tx, Image, image_id)
            if instance.status is not InstanceStatus.STOPPED or instance.releasing:
                raise wrong_instance_status(instance)
            if image.status not in {ImageStatus.AVAILABLE, ImageStatus.DEPRECATED}:
                raise ApiError("ImageNotAvailable", f"The image is {image.status.value}.")
            if instance.on_host or image.system is None:
                raise ApiError("OperationDenied", "A host instance has no system disk of its own.")
            old = self._system_disk(tx, instance)
            check_not_being_copied(tx, [old])
            order = OrderedDisk(
                category=old.category,
                level=old.performance_level or None,
                size=size if size is not None else max(old.size, image.system.size),
                name=old.name,
                description=old.description,
                delete_with_instance=old.delete_with_instance,
            )
            if size is not None and size < old.size:
                raise ApiError(
                    "InvalidSystemDiskSize.ValueNotSupported", f"The system disk has {old.size} GiB: it never shrinks."
                )
            if not self._context.files.can_hold(sizes.to_bytes(order.size or 0)):
                raise ApiError("InvalidDiskSize.NotSupported", "The filesystem of this host has no files of that size.")
            new = new_system_disk(image, instance, order)
            new.tags = old.tags
            instance.image, instance.boot_mode = image.id, boot_mode(image)
            tx.put(instance)
            self._disks.release(tx, old)
            self._context.engine.enter(tx, new, DiskStatus.CREATING)
            tx.remember(token, new.id)
            return new.id

    @staticmethod
    def _system_disk(tx: Transaction, instance: Instance) -> Disk:
        for disk in disks_of(tx, instance.id):
            if disk.type == "system" and disk.status is DiskStatus.IN_USE:
                return disk
        raise ApiError("OperationDenied", f"{instance.id} has no system disk.")
