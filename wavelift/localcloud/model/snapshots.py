"""Snapshots: what a disk held when the request was made.

The copy is made, and durable, before the reply. A disk of a running instance is held still while it is copied: a
machine is paused, the processes of a host instance are stopped. With reflinks (see `volume`) that takes milliseconds;
without, both last as long as copying the allocated data takes.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from wavelift.localcloud.engine import Task
from wavelift.localcloud.entities import Disk, DiskType, Image, Instance, Snapshot, new_id
from wavelift.localcloud.errors import ApiError, invalid
from wavelift.localcloud.model import sizes
from wavelift.localcloud.model.context import Context, disk_lock, find, instance_lock
from wavelift.localcloud.model.disks import is_being_copied, ready_snapshot, wrong_disk_status, wrong_instance_status
from wavelift.localcloud.runtimes.base import RuntimeFailure
from wavelift.localcloud.runtimes.processes import alive
from wavelift.localcloud.runtimes.qmp import QmpError
from wavelift.localcloud.states import DiskStatus, InstanceStatus, SnapshotStatus
from wavelift.localcloud.store import Token, Transaction

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SnapshotOrder:
    name: str = ""
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    retention_days: int = 0


class Snapshots:
    def __init__(self, context: Context) -> None:
        self._context = context
        context.engine.register(SnapshotStatus.PROGRESSING, Task(Snapshot, self._duplicate))

    def create(self, disk_id: str, order: SnapshotOrder, token: Token | None) -> str:
        with self._context.locks.hold(disk_lock(disk_id)):
            with self._context.store.transaction() as tx:
                if (known := tx.recall(token)) is not None:
                    return known
                snapshot = self.begin(tx, disk_id, order)
                tx.remember(token, snapshot.id)
            self.copy([snapshot])
        return snapshot.id

    def begin(self, tx: Transaction, disk_id: str, order: SnapshotOrder) -> Snapshot:
        """Check and note the snapshot. It is not under way until `copy` was called, in the same hold of the lock."""
        disk = find(tx, Disk, disk_id)
        if disk.status not in {DiskStatus.IN_USE, DiskStatus.AVAILABLE}:
            raise wrong_disk_status(disk)
        if disk.instance:
            instance = find(tx, Instance, disk.instance)
            if instance.status not in {InstanceStatus.RUNNING, InstanceStatus.STOPPED}:
                raise wrong_instance_status(instance)
        if not disk.ever_attached:
            raise ApiError(
                "IncorrectDiskStatus.NeverAttached", "The specified disk has never been attached to any instance."
            )
        most = self._context.options.quotas.snapshots_per_disk
        if sum(other.disk == disk.id and not other.source_snapshot for other in tx.look(Snapshot)) >= most:
            raise ApiError("QuotaExceed.Snapshot", f"A disk has at most {most} snapshots.")
        snapshot = new_snapshot(order, disk.id, disk.size, disk.type)
        tx.put(snapshot)
        return snapshot

    def copy(self, snapshots: Sequence[Snapshot]) -> None:
        """Copy all the disks at one point in time, then let the snapshots proceed. The disks' locks are held.

        What cannot be copied was never begun: the request gets an error, and its snapshots are gone.
        """
        files = self._context.files
        failure: Exception | None = None
        try:
            for snapshot in snapshots:
                files.flush(files.disk(snapshot.disk))
            with self._held_still([snapshot.disk for snapshot in snapshots]):
                for snapshot in snapshots:
                    source = files.disk(snapshot.disk)
                    files.fill(files.snapshot(snapshot.id), sizes.to_bytes(snapshot.disk_size), source)
            for snapshot in snapshots:
                files.settle(files.snapshot(snapshot.id))
        except (ApiError, OSError, QmpError, RuntimeFailure) as error:
            failure = error
        with self._context.store.transaction() as tx:
            for snapshot in snapshots:
                noted = find(tx, Snapshot, snapshot.id)
                if failure is None:
                    noted.copied = True
                    self._context.engine.enter(tx, noted, SnapshotStatus.PROGRESSING)
                else:
                    tx.remove(noted)
                    tx.forget(noted.id)
        if failure is not None:
            for snapshot in snapshots:
                files.remove(files.snapshot(snapshot.id))
            raise ApiError("InternalError", f"The disk could not be copied: {failure}") from failure

    @contextmanager
    def _held_still(self, disk_ids: Sequence[str]) -> Iterator[None]:
        with self._context.store.transaction() as tx:
            names = {find(tx, Disk, identifier).instance for identifier in disk_ids} - {""}
        with self._context.locks.hold_all(instance_lock(name) for name in names), ExitStack() as stack:
            with self._context.store.transaction() as tx:
                instances = [find(tx, Instance, name) for name in sorted(names)]
            for instance in instances:
                if alive(instance.pid, instance.ticks):
                    runtime = self._context.runtime(instance)
                    runtime.freeze(instance)
                    stack.callback(runtime.thaw, instance)
            yield

    def recover(self) -> None:
        """Copies cut short by a restart: nobody got a reply, so their point in time may as well be now.

        The snapshots of one image have one point in time, so what a few of them have already is made anew.
        """
        with self._context.store.transaction() as tx:
            image_of = {device.snapshot: image.id for image in tx.look(Image) for device in image.devices}
            left: dict[str, list[Snapshot]] = {}
            for snapshot in tx.look(Snapshot):
                if is_being_copied(snapshot):
                    left.setdefault(image_of.get(snapshot.id, snapshot.id), []).append(snapshot)
        files = self._context.files
        for together in left.values():
            for snapshot in together:
                files.remove(files.snapshot(snapshot.id))
            try:
                with self._context.locks.hold_all(disk_lock(snapshot.disk) for snapshot in together):
                    self.copy(together)
            except ApiError:
                names = ", ".join(snapshot.id for snapshot in together)
                LOG.exception("%s could not be made after the restart", names)

    def duplicate(self, source_id: str, order: SnapshotOrder, token: Token | None) -> str:
        """What CopySnapshot makes: a snapshot of its own, which does not lead back to the disk."""
        with self._context.store.transaction() as tx:
            if (known := tx.recall(token)) is not None:
                return known
            source = ready_snapshot(tx, source_id)
            snapshot = new_snapshot(order, source.disk, source.disk_size, source.disk_type)
            snapshot.source_snapshot = source.id
            self._context.engine.enter(tx, snapshot, SnapshotStatus.PROGRESSING)
            tx.remember(token, snapshot.id)
            return snapshot.id

    def _duplicate(self, identifier: str) -> None:
        with self._context.store.transaction() as tx:
            snapshot = tx.get(Snapshot, identifier)
        if snapshot is not None and snapshot.source_snapshot:
            self.make_file(snapshot)

    def make_file(self, snapshot: Snapshot) -> None:
        """Of a copy. It may be deleted, or its making cancelled, meanwhile: then nothing is left."""
        files = self._context.files
        target = files.snapshot(snapshot.id)
        files.create(target, sizes.to_bytes(snapshot.disk_size), files.snapshot(snapshot.source_snapshot))
        with self._context.store.transaction() as tx:
            gone = tx.get(Snapshot, snapshot.id) is None
        if gone:
            files.remove(target)

    def modify(self, identifier: str, name: str | None, description: str | None, retention_days: int | None) -> None:
        with self._context.store.transaction() as tx:
            snapshot = find(tx, Snapshot, identifier)
            if retention_days is not None:
                if not snapshot.retention_days or retention_days < snapshot.retention_days:
                    raise invalid("RetentionDays", "A snapshot is kept longer, not shorter.")
                snapshot.retention_days = retention_days
            snapshot.name = name if name is not None else snapshot.name
            snapshot.description = description if description is not None else snapshot.description
            snapshot.modified = time.time()
            tx.put(snapshot)

    def delete(self, identifier: str, force: bool) -> None:
        """An unknown id is no error; one that is progressing is given up."""
        with self._context.store.transaction() as tx:
            snapshot = tx.get(Snapshot, identifier)
            if snapshot is None:
                return
            if any(device.snapshot == identifier for image in tx.look(Image) for device in image.devices):
                raise ApiError("SnapshotCreatedImage", "The snapshot has created images.")
            made = [disk for disk in tx.look(Disk) if identifier in {disk.source_snapshot, disk.resetting}]
            reading = any(disk.status in {DiskStatus.CREATING, DiskStatus.REINITING} for disk in made)
            if reading or (made and not force):
                raise ApiError("SnapshotCreatedDisk", "The snapshot has created disks.")
            if is_being_copied(snapshot):
                raise ApiError("InvalidSnapshotId.NotReady", "The snapshot is being made.")
            copies = [other for other in tx.look(Snapshot) if other.source_snapshot == identifier]
            if any(copy.status is SnapshotStatus.PROGRESSING for copy in copies):
                raise ApiError("OperationDenied", "The snapshot is being copied.")
            tx.remove(snapshot)
            files = self._context.files
            tx.after_commit.append(lambda: files.remove(files.snapshot(identifier)))

    def all(self) -> list[Snapshot]:
        with self._context.store.transaction() as tx:
            return tx.look(Snapshot)

    def usage(self) -> dict[str, str]:
        """What each used snapshot was used for: image, disk, or both."""
        with self._context.store.transaction() as tx:
            images = {device.snapshot for image in tx.look(Image) for device in image.devices}
            disks = {disk.source_snapshot for disk in tx.look(Disk)}
        both = {name: "image_disk" for name in images & disks}
        return {name: "image" for name in images} | {name: "disk" for name in disks} | both


def new_snapshot(order: SnapshotOrder, disk: str, size: int, kind: DiskType) -> Snapshot:
    now = time.time()
    return Snapshot(
        id=new_id(Snapshot.prefix),
        created=now,
        modified=now,
        name=order.name,
        description=order.description,
        tags=order.tags,
        retention_days=order.retention_days,
        disk=disk,
        disk_size=size,
        disk_type=kind,
    )
