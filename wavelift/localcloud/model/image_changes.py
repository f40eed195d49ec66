"""Images that are renamed, retired, shared and copied."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from wavelift.localcloud.accounts import ACCOUNT
from wavelift.localcloud.entities import Image, Snapshot
from wavelift.localcloud.errors import ApiError, dry_run_passed, invalid
from wavelift.localcloud.model.context import Context, find
from wavelift.localcloud.model.images import About, Images, check_name, check_own, snapshots_of
from wavelift.localcloud.model.snapshots import SnapshotOrder, new_snapshot
from wavelift.localcloud.states import ImageStatus, SnapshotStatus
from wavelift.localcloud.store import Token, Transaction

READY = {ImageStatus.AVAILABLE, ImageStatus.DEPRECATED}


@dataclass(frozen=True)
class ImageAttributes:
    """What ModifyImageAttribute changes; None leaves a thing as it is."""

    name: str | None = None
    description: str | None = None
    family: str | None = None
    boot_mode: str | None = None
    license: str | None = None
    nvme: bool | None = None
    imds: str | None = None
    status: ImageStatus | None = None


class ImageChanges:
    def __init__(self, context: Context, images: Images) -> None:
        self._context = context
        self._images = images

    def modify(self, identifier: str, change: ImageAttributes, dry_run: bool) -> None:
        with self._context.store.transaction() as tx:
            image = find(tx, Image, identifier)
            check_own(image)
            if image.status not in READY:
                raise wrong_image_status(image)
            if change.name not in {None, image.name}:
                check_name(tx, change.name or "")
            if change.imds == "v1" and image.imds == "v2":
                raise invalid("Features.ImdsSupport", "It does not go back from v2 to v1.")
            if change.status is ImageStatus.DEPRECATED and image.shared_with:
                raise ApiError("OperationDenied", "A shared image cannot be deprecated.")
            if dry_run:
                raise dry_run_passed()
            for name, value in vars(change).items():
                if value is not None:
                    setattr(image, name, value)
            tx.put(image)

    def share(self, identifier: str, add: Sequence[str], remove: Sequence[str], dry_run: bool) -> None:
        with self._context.store.transaction() as tx:
            image = find(tx, Image, identifier)
            check_own(image)
            if image.status is not ImageStatus.AVAILABLE:
                raise wrong_image_status(image)
            if ACCOUNT in add:
                raise ApiError("InvalidAccount.Forbbiden", "An image is not shared with the account that has it.")
            now = time.time()
            added = {account: image.shared_with.get(account, now) for account in add}
            shared = {**image.shared_with, **added}
            image.shared_with = {account: since for account, since in shared.items() if account not in remove}
            if len(image.shared_with) > self._context.options.quotas.accounts_per_image:
                raise ApiError("QuotaExceed.ShareImageUser", "The shared image user quota exceeds.")
            if dry_run:
                raise dry_run_passed()
            tx.put(image)

    def get(self, identifier: str) -> Image:
        with self._context.store.transaction() as tx:
            return find(tx, Image, identifier)

    def duplicate(self, identifier: str, about: About, dry_run: bool, token: Token | None) -> str:
        """What CopyImage makes: an image with snapshots of its own. The rest it has from its source."""
        with self._context.store.transaction() as tx:
            if (known := tx.recall(token)) is not None:
                return known
            source = find(tx, Image, identifier)
            check_own(source)
            if source.status is not ImageStatus.AVAILABLE:
                raise wrong_image_status(source)
            same = {
                name: getattr(source, name)
                for name in ("architecture", "platform", "boot_mode", "version", "license", "nvme", "imds")
            }
            image = self._images.new(tx, replace(about, **same))
            image.source_image = source.id
            image.devices = [device.model_copy() for device in source.devices]
            if dry_run:
                raise dry_run_passed()
            for device, original in zip(
                [device for device in image.devices if device.snapshot], snapshots_of(tx, source), strict=True
            ):
                device.snapshot = self._copied(tx, image, original)
            self._context.engine.enter(tx, image, ImageStatus.CREATING)
            tx.remember(token, image.id)
            return image.id

    @staticmethod
    def _copied(tx: Transaction, image: Image, original: Snapshot) -> str:
        order = SnapshotOrder(name=f"{image.id}-{original.id}")
        copy = new_snapshot(order, original.disk, original.disk_size, original.disk_type)
        copy.source_snapshot, copy.maker = original.id, image.id
        tx.put(copy)
        return copy.id

    def cancel_copy(self, identifier: str) -> None:
        """The copy is gone with its snapshots."""
        files = self._context.files
        with self._context.store.transaction() as tx:
            image = find(tx, Image, identifier)
            if not image.source_image or image.status is not ImageStatus.CREATING:
                raise wrong_image_status(image)
            for snapshot in snapshots_of(tx, image):
                if snapshot.status is SnapshotStatus.PROGRESSING:
                    tx.remove(snapshot)
                    path = files.snapshot(snapshot.id)
                    tx.after_commit.append(lambda path=path: files.remove(path))  # type: ignore[misc]
            tx.remove(image)


def wrong_image_status(image: Image) -> ApiError:
    return ApiError("IncorrectImageStatus", f"The current status of {image.id}, {image.status.value}, forbids it.")
