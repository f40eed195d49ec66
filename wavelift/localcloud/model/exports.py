"""ExportImage: the disks of an image become objects in a bucket."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from wavelift.localcloud.entities import Image, ImageDevice, Job, new_id
from wavelift.localcloud.errors import ApiError, dry_run_passed
from wavelift.localcloud.model import formats, sizes
from wavelift.localcloud.model.context import Context, find
from wavelift.localcloud.model.conversion import Converter
from wavelift.localcloud.model.image_changes import wrong_image_status
from wavelift.localcloud.model.images import check_own
from wavelift.localcloud.model.imports import check_bucket
from wavelift.localcloud.model.tasks import Tasks, cancellable
from wavelift.localcloud.oss.model.store import ObjectStore
from wavelift.localcloud.states import ImageStatus
from wavelift.localcloud.store import Transaction

DATA_DISKS = 4
LARGEST_DATA_DISK = 500  # GiB


@dataclass(frozen=True)
class ExportOrder:
    image: str
    bucket: str
    prefix: str = ""
    format: str = "RAW"
    dry_run: bool = False


class Exports:
    def __init__(self, context: Context, tasks: Tasks, objects: ObjectStore, converter: Converter) -> None:
        self._context = context
        self._tasks = tasks
        self._objects = objects
        self._converter = converter

    def order(self, order: ExportOrder) -> str:
        """The task."""
        with self._context.store.transaction() as tx:
            image = find(tx, Image, order.image)
            check_own(image)
            if image.status is not ImageStatus.AVAILABLE:
                raise wrong_image_status(image)
            if any(job.resource == image.id and cancellable(job) for job in tx.look(Job)):
                raise ApiError("ImageIsExporting", "The specified image is exporting.")
            data = [device for device in image.devices if device.type == "data"]
            if len(data) > DATA_DISKS or any(device.size > LARGEST_DATA_DISK for device in data):
                raise ApiError(
                    "InvalidImage.DiskAmountOrSize",
                    f"An image that is exported has at most {DATA_DISKS} data disks of {LARGEST_DATA_DISK} GiB.",
                )
            check_bucket(self._objects, order.bucket)
            if order.dry_run:
                raise dry_run_passed()
            job = Job(
                id=new_id(Job.prefix),
                created=time.time(),
                action="ExportImage",
                resource=image.id,
                bucket=order.bucket,
                format=order.format,
            )
            prefix = f"{order.prefix}_" if order.prefix else ""
            job.results = [f"{prefix}{image.id}_{job.id}_{_end(device, order.format)}" for device in image.devices]
            self._tasks.add(tx, job)
            return job.id

    def began(self, tx: Transaction, job: Job) -> None:
        """Nothing else changes."""

    def work(self, job: Job, check: Callable[[], None]) -> None:
        """What a cancelled or failed one has put into the bucket stays there, as with ECS."""
        with self._context.store.transaction() as tx:
            image = find(tx, Image, job.resource)
        files = self._context.files
        fresh, converted = files.scratch(f"{job.id}.empty"), files.scratch(job.id)
        try:
            for device, key in zip(image.devices, job.results, strict=True):
                if device.snapshot:
                    source = files.snapshot(device.snapshot)
                else:
                    fresh.touch()
                    files.grow(fresh, sizes.to_bytes(device.size))
                    source = fresh
                if job.format != "RAW":
                    self._converter.run(job.id, formats.from_raw(job.format, source, converted))
                    source = converted
                self._objects.put_file(job.bucket, key, source, check)
                fresh.unlink(missing_ok=True)
        finally:
            fresh.unlink(missing_ok=True)
            converted.unlink(missing_ok=True)

    def ended(self, tx: Transaction, job: Job, failed: bool) -> None:
        """Nothing else changes."""


def _end(device: ImageDevice, kind: str) -> str:
    where = "system" if device.type == "system" else f"data_{device.device.rpartition('/')[2]}"
    return f"{where}.{kind.lower()}"
