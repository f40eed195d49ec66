"""ImportImage: files in a bucket become the snapshots of an image."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from wavelift.localcloud.entities import GIB, DiskType, Image, ImageDevice, Job, Snapshot, new_id
from wavelift.localcloud.errors import ApiError, dry_run_passed, invalid
from wavelift.localcloud.model import formats, sizes
from wavelift.localcloud.model.context import Context
from wavelift.localcloud.model.conversion import Converter
from wavelift.localcloud.model.images import DATA_DISKS, SYSTEM_DEVICE, About, Images
from wavelift.localcloud.model.snapshots import SnapshotOrder, new_snapshot
from wavelift.localcloud.model.tasks import Tasks
from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.model.store import ObjectStore
from wavelift.localcloud.states import ImageStatus, SnapshotStatus
from wavelift.localcloud.store import Token, Transaction

LARGEST = formats.LARGEST // GIB


@dataclass(frozen=True)
class Source:
    bucket: str
    object: str
    format: str | None = None  # found out when nobody says it
    size: int | None = None  # GiB; the file's own when nobody says it
    device: str | None = None


@dataclass(frozen=True)
class ImportOrder:
    about: About
    sources: Sequence[Source] = field(default_factory=list)
    dry_run: bool = False


class Imports:
    def __init__(
        self, context: Context, images: Images, tasks: Tasks, objects: ObjectStore, converter: Converter
    ) -> None:
        self._context = context
        self._images = images
        self._tasks = tasks
        self._objects = objects
        self._converter = converter

    def order(self, order: ImportOrder, token: Token | None) -> tuple[str, str]:
        """The image and the task that makes it."""
        with self._context.store.transaction() as tx:
            if (known := tx.recall(token)) is not None:
                image, task = known.split()
                return image, task
            devices = _devices(order.sources)
            for source in order.sources:
                check_object(self._objects, source.bucket, source.object)
            made = self._images.new(tx, order.about)
            if order.dry_run:
                raise dry_run_passed()
            job = Job(id=new_id(Job.prefix), created=time.time(), action="ImportImage", resource=made.id)
            job.results = [new_id(Snapshot.prefix) for _ in devices]
            made.devices, made.task, made.status = devices, job.id, ImageStatus.WAITING
            tx.put(made)
            self._tasks.add(tx, job)
            tx.remember(token, f"{made.id} {job.id}")
            return made.id, job.id

    def began(self, tx: Transaction, job: Job) -> None:
        image = tx.get(Image, job.resource)
        if image is not None:
            image.become(ImageStatus.CREATING)
            tx.put(image)

    def work(self, job: Job, check: Callable[[], None]) -> None:
        with self._context.store.transaction() as tx:
            image = tx.get(Image, job.resource)
            devices = image.devices if image is not None else []
        try:
            for device, snapshot in zip(devices, job.results, strict=True):
                if not self._context.files.snapshot(snapshot).exists():
                    self._fetch(job, device, snapshot, check)
            check()
        except BaseException:
            self._discard(job)
            raise

    def _fetch(self, job: Job, device: ImageDevice, snapshot: str, check: Callable[[], None]) -> None:
        files = self._context.files
        target, raw, foreign = files.snapshot(snapshot), files.scratch(snapshot), files.scratch(f"{snapshot}.foreign")
        with self._objects.open_object(device.bucket, device.object) as reader:
            kind = device.format or formats.detect(reader.read, reader.size)
            size = _size(device, formats.inspect(kind, reader.read, reader.size))
            if kind == "RAW":
                if (whole := reader.whole_file()) is not None:
                    files.fill(target, sizes.to_bytes(size), whole)
                else:
                    reader.copy_to(raw, check)
            else:
                source = reader.whole_file()
                if source is None:
                    reader.copy_to(foreign, check)
                    source = foreign
                for command in formats.to_raw(kind, source, raw):
                    self._converter.run(job.id, command)
                foreign.unlink(missing_ok=True)
        files.grow(raw, sizes.to_bytes(_size(device, raw.stat().st_size)))
        files.settle(target)

    def _discard(self, job: Job) -> None:
        """Nobody knows of these files yet."""
        files = self._context.files
        for snapshot in job.results:
            files.scratch(f"{snapshot}.foreign").unlink(missing_ok=True)
            files.remove(files.snapshot(snapshot))

    def ended(self, tx: Transaction, job: Job, failed: bool) -> None:
        image = tx.get(Image, job.resource)
        if image is None:
            return
        if failed:
            image.become(ImageStatus.CREATE_FAILED)
            tx.after_commit.append(lambda: self._discard(job))
        else:
            image.become(ImageStatus.AVAILABLE)
            for device, identifier in zip(image.devices, job.results, strict=True):
                device.size = self._context.files.snapshot(identifier).stat().st_size // GIB
                device.snapshot = identifier
                tx.put(_snapshot(image, device))
        tx.put(image)


def check_object(objects: ObjectStore, bucket: str, key: str) -> None:
    check_bucket(objects, bucket)
    try:
        found = objects.objects.get(bucket, key)
    except OssError:
        raise ApiError("InvalidOSSObject.NotFound", f"The OSS object {key!r} does not exist in {bucket}.") from None
    if found.size == 0:
        raise ApiError("InvalidOSSObject.Size", "The specified OSS object size is zero.")


def check_bucket(objects: ObjectStore, bucket: str) -> None:
    try:
        objects.buckets.get(bucket)
    except OssError:
        raise ApiError("InvalidOSSBucket.NotFound", f"The OSS bucket {bucket!r} does not exist.") from None


def _devices(sources: Sequence[Source]) -> list[ImageDevice]:
    """The first is the system disk."""
    if not sources:
        raise ApiError("MissingParameter.DiskDeviceMapping", "The specified DiskDeviceMapping is not supplied.")
    if len(sources) > 1 + DATA_DISKS:
        raise invalid("DiskDeviceMapping", f"An image has at most {DATA_DISKS} data disks.")
    devices = []
    for number, source in enumerate(sources):
        kind: DiskType = "data" if number else "system"
        if source.size is not None and not 1 <= source.size <= LARGEST:
            code = "InvalidDataDiskSize" if number else "InvalidImageSize"
            raise ApiError(code, f"The size of a disk of an imported image is 1 to {LARGEST} GiB.")
        usual = f"/dev/xvd{chr(ord('a') + number)}"
        devices.append(
            ImageDevice(
                device=source.device or usual,
                type=kind,
                snapshot="",
                size=source.size or 0,
                bucket=source.bucket,
                object=source.object,
                format=source.format or "",
            )
        )
    names = {device.device for device in devices}
    if devices[0].device != SYSTEM_DEVICE or len(names) != len(devices):
        raise ApiError("InvalidParameter.Malformed", 'The specified "DiskDeviceMapping.n.Device" is not valid.')
    return devices


def _size(device: ImageDevice, length: int) -> int:
    """GiB. Nobody may order less than there is."""
    least = math.ceil(length / GIB)
    if device.size and device.size < least:
        raise formats.Unfit("InvalidImageSize", f"The disk in the file has {least} GiB, more than {device.size}.")
    return device.size or least


def _snapshot(image: Image, device: ImageDevice) -> Snapshot:
    order = SnapshotOrder(name=f"{image.id}-{device.device.rpartition('/')[2]}", description="Created by ImportImage")
    snapshot = new_snapshot(order, "", device.size, device.type)
    snapshot.id, snapshot.maker, snapshot.copied = device.snapshot, image.id, True
    snapshot.become(SnapshotStatus.ACCOMPLISHED)
    return snapshot
