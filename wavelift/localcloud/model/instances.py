"""Instances: ordered, started, stopped, released. What runs them is in `machines` and `hosts`."""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wavelift.localcloud.engine import Task
from wavelift.localcloud.entities import Disk, Instance, Moving
from wavelift.localcloud.errors import dry_run_passed, forbidden
from wavelift.localcloud.model.context import Context, disk_lock, find, instance_lock
from wavelift.localcloud.model.disks import Disks, disks_of, let_go, wrong_instance_status
from wavelift.localcloud.model.network import open_ports
from wavelift.localcloud.model.orders import InstanceOrder, prepare
from wavelift.localcloud.runtimes.processes import alive
from wavelift.localcloud.states import DiskStatus, InstanceStatus
from wavelift.localcloud.store import Token, Transaction

LOG = logging.getLogger(__name__)

CONSOLE_LIMIT = 64 * 1024
HOST_GRACE = 5.0
SHUTDOWN_GRACE = 5.0


class Instances:
    def __init__(self, context: Context, disks: Disks) -> None:
        self._context = context
        self._disks = disks
        engine = context.engine
        engine.register(InstanceStatus.PENDING, Task(Instance, self._make_disks, self._made_disks))
        engine.register(InstanceStatus.STARTING, Task(Instance, self._start, self._started))
        engine.register(InstanceStatus.STOPPING, Task(Instance, self._stop, self._stopped))

    def run(self, order: InstanceOrder, token: Token | None) -> str:
        with self._context.store.transaction() as tx:
            if (known := tx.recall(token)) is not None:
                return known
            instance, disks = prepare(tx, order)
            if order.dry_run:
                raise dry_run_passed()
            for disk in disks:
                tx.put(disk)
            self._context.engine.enter(tx, instance, InstanceStatus.PENDING)
            tx.remember(token, instance.id)
            return instance.id

    def _make_disks(self, identifier: str) -> None:
        with self._context.store.transaction() as tx:
            disks = disks_of(tx, identifier)
        for disk in disks:
            self._disks.make_file(disk)

    def _made_disks(self, tx: Transaction, entity: Moving, failed: bool) -> None:
        for disk in disks_of(tx, entity.id):
            if failed:
                self._disks.release(tx, disk)
            else:
                disk.status = DiskStatus.IN_USE
                disk.ever_attached = True
                disk.attached_at = time.time()
                tx.put(disk)

    def start(self, identifier: str, dry_run: bool) -> None:
        with self._context.store.transaction() as tx:
            instance = find(tx, Instance, identifier)
            if instance.status is not InstanceStatus.STOPPED:
                raise wrong_instance_status(instance)
            systems = [disk for disk in disks_of(tx, identifier) if disk.type == "system"]
            if not any(disk.status is DiskStatus.IN_USE for disk in systems):
                raise forbidden("OperationDenied", f"{identifier} has no system disk.")
            if any(disk.status is DiskStatus.REINITING for disk in disks_of(tx, identifier)):
                raise forbidden("IncorrectDiskStatus", f"A disk of {identifier} is being put back.")
            if dry_run:
                raise dry_run_passed()
            instance.reboot = False
            self._context.engine.request(tx, instance, InstanceStatus.STARTING)

    def _start(self, identifier: str) -> None:
        with self._context.store.transaction() as tx:
            instance = find(tx, Instance, identifier)
            names = [disk_lock(disk.id) for disk in disks_of(tx, identifier)]
        # A snapshot that is being taken of a disk ends before the disk is written again.
        with self._context.locks.hold_all([*names, instance_lock(identifier)]):
            with self._context.store.transaction() as tx:
                attached = [d for d in disks_of(tx, identifier) if d.status is not DiskStatus.DETACHING]
                ports = open_ports(tx, instance.groups)
            runtime = self._context.runtime(instance)
            if alive(instance.pid, instance.ticks) and not instance.reboot:
                return
            runtime.stop(instance, self._grace(instance) if instance.reboot else 0)
            pid, ticks = runtime.start(instance, attached, ports)
            with self._context.store.transaction() as tx:
                instance = find(tx, Instance, identifier)
                instance.pid, instance.ticks, instance.reboot = pid, ticks, False
                tx.put(instance)

    def _started(self, tx: Transaction, entity: Moving, failed: bool) -> None:
        instance = find(tx, Instance, entity.id)
        instance.started_at = time.time()
        if failed:
            instance.pid = instance.ticks = 0
        tx.put(instance)

    def stop(self, identifier: str, force: bool, dry_run: bool) -> None:
        with self._context.store.transaction() as tx:
            instance = find(tx, Instance, identifier)
            if instance.status is not InstanceStatus.RUNNING:
                raise wrong_instance_status(instance)
            if dry_run:
                raise dry_run_passed()
            instance.force = force
            self._context.engine.request(tx, instance, InstanceStatus.STOPPING)

    def reboot(self, identifier: str, force: bool, dry_run: bool) -> None:
        with self._context.store.transaction() as tx:
            instance = find(tx, Instance, identifier)
            if instance.status is not InstanceStatus.RUNNING:
                raise wrong_instance_status(instance)
            if dry_run:
                raise dry_run_passed()
            instance.force, instance.reboot = force, True
            self._context.engine.request(tx, instance, InstanceStatus.STARTING)

    def delete(self, identifier: str, force: bool, dry_run: bool) -> None:
        """Stops it without grace; then the instance is gone with the disks that go with it."""
        with self._context.store.transaction() as tx:
            instance = find(tx, Instance, identifier)
            allowed = {InstanceStatus.STOPPED} | ({InstanceStatus.RUNNING} if force else set())
            if instance.status not in allowed:
                raise wrong_instance_status(instance)
            moving = [d for d in disks_of(tx, identifier) if d.status is not DiskStatus.IN_USE]
            if moving:
                raise forbidden("IncorrectDiskStatus", f"{moving[0].id} is {moving[0].status.value}.")
            if dry_run:
                raise dry_run_passed()
            instance.force = instance.releasing = True
            self._context.engine.request(tx, instance, InstanceStatus.STOPPING)

    def _grace(self, instance: Instance) -> float:
        if instance.force:
            return 0
        grace = self._context.options.grace
        return min(HOST_GRACE, grace) if instance.on_host else grace

    def _stop(self, identifier: str) -> None:
        with self._context.locks.hold(instance_lock(identifier)):
            with self._context.store.transaction() as tx:
                instance = find(tx, Instance, identifier)
            self._context.runtime(instance).stop(instance, self._grace(instance))

    def _stopped(self, tx: Transaction, entity: Moving, failed: bool) -> None:
        instance = find(tx, Instance, entity.id)
        instance.pid = instance.ticks = 0
        instance.force = False
        tx.put(instance)
        if not instance.releasing:
            return
        for disk in disks_of(tx, instance.id):
            if disk.delete_with_instance:
                self._disks.release(tx, disk)
            else:
                disk.status = DiskStatus.AVAILABLE
                let_go(disk)
                tx.put(disk)
        tx.remove(instance)
        tx.after_commit.append(lambda: self._context.folders.remove(instance.id))

    def notice(self) -> None:
        """Instances that ended by themselves are Stopped."""
        with self._context.store.transaction() as tx:
            ended = [i for i in tx.all(Instance) if i.status is InstanceStatus.RUNNING and not alive(i.pid, i.ticks)]
        for instance in ended:
            with self._context.locks.hold(instance_lock(instance.id)):
                # What a script leaves behind ends with it.
                self._context.runtime(instance).stop(instance, 0)
                self._note_end(instance)

    def _note_end(self, ended: Instance) -> None:
        with self._context.store.transaction() as tx:
            instance = tx.get(Instance, ended.id)
            if instance is None or instance.status is not InstanceStatus.RUNNING or instance.pid != ended.pid:
                return
            instance.become(InstanceStatus.STOPPED)
            instance.pid = instance.ticks = 0
            tx.put(instance)

    def adopt(self) -> None:
        """After a restart: go on with what still runs. A copy may have been cut short, so nothing stays frozen."""
        with self._context.store.transaction() as tx:
            instances = tx.all(Instance)
        for instance in instances:
            if not alive(instance.pid, instance.ticks):
                continue
            if not instance.on_host and not self._context.machines.answers(instance.id):
                self._context.machines.stop(instance, 0)
                continue
            self._context.runtime(instance).thaw(instance)
            LOG.info("%s still runs as process %d", instance.id, instance.pid)

    def shut_down(self) -> None:
        """The cloud ends: every instance is stopped, with a short grace, all at once."""
        with self._context.store.transaction() as tx:
            running = [i for i in tx.all(Instance) if alive(i.pid, i.ticks)]
        if running:
            with ThreadPoolExecutor(max_workers=len(running)) as pool:
                list(pool.map(self._shut_down, running))

    def _shut_down(self, instance: Instance) -> None:
        with self._context.locks.hold(instance_lock(instance.id)):
            self._context.runtime(instance).stop(instance, SHUTDOWN_GRACE)
        self._note_end(instance)

    def console(self, identifier: str) -> tuple[bytes, float]:
        """The end of what the serial console showed, and when it last changed."""
        with self._context.store.transaction() as tx:
            find(tx, Instance, identifier)
        path = self._context.folders.console(identifier)
        return (_tail(path, CONSOLE_LIMIT), path.stat().st_mtime) if path.exists() else (b"", 0.0)

    def screenshot(self, identifier: str) -> bytes:
        with self._context.locks.hold(instance_lock(identifier)):
            with self._context.store.transaction() as tx:
                instance = find(tx, Instance, identifier)
            if instance.status is not InstanceStatus.RUNNING or not alive(instance.pid, instance.ticks):
                raise wrong_instance_status(instance)
            picture = self._context.runtime(instance).screenshot(instance, wake=False)
        if picture is None:
            raise forbidden("OperationDenied", "A host instance has no screen.")
        return picture

    def all(self) -> list[Instance]:
        with self._context.store.transaction() as tx:
            return tx.all(Instance)

    def disks(self, identifier: str) -> Sequence[Disk]:
        with self._context.store.transaction() as tx:
            return disks_of(tx, identifier)


def _tail(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - limit))
        return file.read()
