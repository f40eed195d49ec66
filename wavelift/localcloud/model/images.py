"""Images: a name for the snapshots that a machine's disks start from."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from wavelift.localcloud.engine import Task
from wavelift.localcloud.entities import DiskType, Image, ImageDevice, Instance, Job, Moving, Snapshot, new_id
from wavelift.localcloud.errors import ApiError, dry_run_passed, invalid, missing
from wavelift.localcloud.model import quotas
from wavelift.localcloud.model.context import Context, disk_lock, find
from wavelift.localcloud.model.disks import disks_of, ready_snapshot, wrong_instance_status
from wavelift.localcloud.model.snapshots import SnapshotOrder, Snapshots
from wavelift.localcloud.model.tasks import UNDER_WAY
from wavelift.localcloud.states import DiskStatus, ImageStatus, InstanceStatus, SnapshotStatus
from wavelift.localcloud.store import Token, Transaction

SYSTEM_DEVICE = "/dev/xvda"
DATA_DISKS = 16
EMPTY_DISK = 20  # GiB


@dataclass(frozen=True)
class Mapping:
    """Without a snapshot: a data disk that begins empty."""

    snapshot: str | None = None
    device: str | None = None
    type: DiskType | None = None
    size: int | None = None


@dataclass(frozen=True)
class About:
    """What is said of an image, wherever its disks come from."""

    name: str = ""
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    architecture: str = "x86_64"
    platform: str = "Others Linux"
    boot_mode: str = "BIOS"
    family: str = ""
    version: str = ""
    license: str = ""
    nvme: bool = False
    imds: str = "v1"


@dataclass(frozen=True)
class ImageOrder:
    """Made from an instance, or else from mappings, or else from one snapshot of a system disk."""

    about: About = field(default_factory=About)
    instance: str | None = None
    mappings: Sequence[Mapping] = ()
    snapshot: str | None = None
    dry_run: bool = False


class Images:
    def __init__(self, context: Context, snapshots: Snapshots) -> None:
        self._context = context
        self._snapshots = snapshots
        context.engine.register(ImageStatus.CREATING, Task(Image, self._copy, self._made))

    def create(self, order: ImageOrder, token: Token | None) -> str:
        if order.instance:
            return self._from_instance(order, order.instance, token)
        with self._context.store.transaction() as tx:
            if (known := tx.recall(token)) is not None:
                return known
            image = self.new(tx, order.about)
            if order.mappings:
                image.devices = self._from_mappings(tx, order.mappings)
            elif order.snapshot:
                image.devices = [self._from_snapshot(tx, order.snapshot)]
            else:
                raise missing("SnapshotId")
            if order.dry_run:
                raise dry_run_passed()
            self._context.engine.enter(tx, image, ImageStatus.CREATING)
            tx.remember(token, image.id)
            return image.id

    def new(self, tx: Transaction, about: About) -> Image:
        image = Image(id=new_id(Image.prefix), created=time.time(), **vars(about))
        image.name = image.name or image.id
        check_name(tx, image.name)
        quotas.check(tx, self._context.options.quotas, Image)
        return image

    def _from_mappings(self, tx: Transaction, mappings: Sequence[Mapping]) -> list[ImageDevice]:
        if len(mappings) > 1 + DATA_DISKS:
            raise invalid("DiskDeviceMapping", f"An image has at most {DATA_DISKS} data disks.")
        devices: list[ImageDevice] = []
        for mapping in mappings:
            if mapping.snapshot is None:
                devices.append(_empty_device(mapping, devices))
                continue
            snapshot = ready_snapshot(tx, mapping.snapshot)
            kind = mapping.type or snapshot.disk_type
            if kind == "system" and snapshot.disk_type == "data" and not self._context.options.data_snapshot_images:
                raise ApiError("UserNotInTheWhiteList", "The user is not in the white list of data disk snapshots.")
            size = mapping.size if mapping.size is not None else snapshot.disk_size
            if size < snapshot.disk_size:
                raise ApiError("InvalidDiskSize.TooSmall", "Specified disk size is less than the size of snapshot.")
            device = mapping.device or _next_device(kind, devices)
            devices.append(ImageDevice(device=device, type=kind, snapshot=snapshot.id, size=size))
        self._check(devices)
        return sorted(devices, key=lambda device: (device.type != "system", device.device))

    @staticmethod
    def _check(devices: Sequence[ImageDevice]) -> None:
        names = [device.device for device in devices]
        systems = [device for device in devices if device.type == "system"]
        where = "DiskDeviceMapping"
        if len(systems) != 1:
            raise invalid(where, "An image has exactly one system disk.")
        if systems[0].device != SYSTEM_DEVICE:
            raise invalid(f"{where}.Device", f"The system disk is {SYSTEM_DEVICE}.")
        if len(set(names)) != len(names):
            raise invalid(f"{where}.Device", "No two disks can have one device name.")

    @staticmethod
    def _from_snapshot(tx: Transaction, identifier: str) -> ImageDevice:
        snapshot = ready_snapshot(tx, identifier)
        if snapshot.disk_type != "system":
            raise ApiError("OperationDenied", "The specified snapshot is not one of a system disk.")
        return ImageDevice(device=SYSTEM_DEVICE, type="system", snapshot=snapshot.id, size=snapshot.disk_size)

    def _from_instance(self, order: ImageOrder, instance_id: str, token: Token | None) -> str:
        """Snapshots all its disks at one point in time first."""
        with self._context.store.transaction() as tx:
            names = [disk_lock(disk.id) for disk in disks_of(tx, instance_id)]
        with self._context.locks.hold_all(names):
            with self._context.store.transaction() as tx:
                if (known := tx.recall(token)) is not None:
                    return known
                instance = find(tx, Instance, instance_id)
                if instance.status not in {InstanceStatus.RUNNING, InstanceStatus.STOPPED} or instance.on_host:
                    raise wrong_instance_status(instance)
                image = self.new(tx, order.about)
                disks = [disk for disk in disks_of(tx, instance_id) if disk.status is DiskStatus.IN_USE]
                if not disks or disks[0].type != "system":
                    raise ApiError("OperationDenied", f"{instance.id} has no system disk.")
                if any(disk_lock(disk.id) not in names for disk in disks):
                    raise wrong_instance_status(instance)
                if order.dry_run:
                    raise dry_run_passed()
                snapshots: list[Snapshot] = []
                for disk in disks:
                    snapshot = self._snapshots.begin(tx, disk.id, SnapshotOrder(f"{image.id}-{disk.id}"))
                    snapshots.append(snapshot)
                    image.devices.append(
                        ImageDevice(device=disk.device, type=disk.type, snapshot=snapshot.id, size=disk.size)
                    )
                tx.put(image)
                tx.remember(token, image.id)
            try:
                self._snapshots.copy(snapshots)
            except ApiError:
                with self._context.store.transaction() as tx:
                    tx.remove(image)
                    tx.forget(image.id)
                raise
        with self._context.store.transaction() as tx:
            self._context.engine.enter(tx, find(tx, Image, image.id), ImageStatus.CREATING)
        return image.id

    def recover(self) -> None:
        """Images whose snapshots were being copied when the cloud stopped; gone with those that could not be made."""
        with self._context.store.transaction() as tx:
            for image in tx.all(Image):
                if image.status is not ImageStatus.CREATING or image.busy is not None or image.task:
                    continue
                if all(tx.get(Snapshot, device.snapshot) for device in image.devices if device.snapshot):
                    self._context.engine.enter(tx, image, ImageStatus.CREATING)
                else:
                    tx.remove(image)
                    tx.forget(image.id)

    def _copy(self, identifier: str) -> None:
        """The snapshots of an image that is a copy are copies too."""
        with self._context.store.transaction() as tx:
            image = tx.get(Image, identifier)
            made = snapshots_of(tx, image) if image is not None and image.source_image else []
        for snapshot in made:
            self._snapshots.make_file(snapshot)

    @staticmethod
    def _made(tx: Transaction, entity: Moving, failed: bool) -> None:
        image = find(tx, Image, entity.id)
        sources = snapshots_of(tx, image)
        if any(snapshot.status is SnapshotStatus.FAILED for snapshot in sources):
            image.become(ImageStatus.CREATE_FAILED)
            tx.put(image)
        for snapshot in sources:
            if snapshot.maker == image.id and snapshot.status is SnapshotStatus.PROGRESSING:
                snapshot.become(SnapshotStatus.FAILED if failed else SnapshotStatus.ACCOMPLISHED)
                tx.put(snapshot)

    def delete(self, identifier: str, force: bool, dry_run: bool) -> None:
        """An unknown id is no error."""
        with self._context.store.transaction() as tx:
            image = tx.get(Image, identifier)
            if image is not None:
                self._check_delete(tx, image, force)
            if dry_run:
                raise dry_run_passed()
            if image is not None:
                tx.remove(image)

    @staticmethod
    def _check_delete(tx: Transaction, image: Image, force: bool) -> None:
        check_own(image)
        if image.task and image.status in {ImageStatus.WAITING, ImageStatus.CREATING}:
            raise ApiError("ImageIsImporting", "The specified image is importing.")
        if image.source_image and image.status is ImageStatus.CREATING:
            raise ApiError("ImageIsCopying", "The specified image is being copied.")
        if any(job.resource == image.id and job.status in UNDER_WAY for job in tx.look(Job)):
            raise ApiError("ImageIsExporting", "The specified image is exporting.")
        if any(copy.source_image == image.id and copy.busy is not None for copy in tx.look(Image)):
            raise ApiError("ImageIsCopying", "The specified image is being copied.")
        users = [instance for instance in tx.look(Instance) if instance.image == image.id]
        if any(instance.status is InstanceStatus.PENDING for instance in users) or (users and not force):
            raise ApiError("ImageUsingByInstance", "The specified image is being used by instances.")

    def all(self) -> list[Image]:
        with self._context.store.transaction() as tx:
            return tx.look(Image)

    def in_use(self) -> set[str]:
        """Images that instances were made from."""
        with self._context.store.transaction() as tx:
            return {instance.image for instance in tx.look(Instance)}


def snapshots_of(tx: Transaction, image: Image) -> list[Snapshot]:
    return [find(tx, Snapshot, device.snapshot) for device in image.devices if device.snapshot]


def check_name(tx: Transaction, name: str) -> None:
    if any(other.name == name for other in tx.look(Image)):
        raise ApiError("InvalidImageName.Duplicated", f"There is an image named {name!r} already.")


def check_own(image: Image) -> None:
    if image.owner != "self":
        raise ApiError("OperationDenied", "An image of the system cannot be changed.")


def _empty_device(mapping: Mapping, devices: Sequence[ImageDevice]) -> ImageDevice:
    if mapping.type == "system":
        raise missing("DiskDeviceMapping.SnapshotId")
    size = mapping.size if mapping.size is not None else EMPTY_DISK
    if not 5 <= size <= 32768:
        raise invalid("DiskDeviceMapping.Size")
    return ImageDevice(device=mapping.device or _next_device("data", devices), type="data", snapshot="", size=size)


def _next_device(kind: DiskType, devices: Sequence[ImageDevice]) -> str:
    if kind == "system":
        return SYSTEM_DEVICE
    used = {device.device for device in devices}
    return next(name for letter in "bcdefghijklmnopqrstuvwxyz" if (name := f"/dev/xvd{letter}") not in used)
