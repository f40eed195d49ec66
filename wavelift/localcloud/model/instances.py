"""Instances: ordered, started, stopped, released. What runs them is in `machines` and `hosts`."""

import logging
import time
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from wavelift.localcloud.engine import Task
from wavelift.localcloud.entities import Disk, Instance, Moving
from wavelift.localcloud.errors import ApiError, dry_run_passed
from wavelift.localcloud.model import quotas, stock
from wavelift.localcloud.model.context import Context, disk_lock, find, instance_lock
from wavelift.localcloud.model.disks import Disks, check_not_being_copied, disks_of, let_go, wrong_instance_status
from wavelift.localcloud.model.network import open_ports
from wavelift.localcloud.model.orders import InstanceOrder, Made, prepare
from wavelift.localcloud.runtimes.processes import alive, end
from wavelift.localcloud.states import DiskStatus, InstanceStatus
from wavelift.localcloud.store import Token, Transaction

LOG = logging.getLogger(__name__)

HOST_GRACE = 5.0
SHUTDOWN_GRACE = 5.0


@dataclass(frozen=True)
class Moved:
    instance: str
    before: InstanceStatus
    after: InstanceStatus


# Refuses, or notes how the move is to be made and says where it leads.
Ask = Callable[[Transaction, Instance], InstanceStatus]


class Instances:
    def __init__(self, context: Context, disks: Disks) -> None:
        self._context = context
        self._disks = disks
        engine = context.engine
        engine.register(InstanceStatus.PENDING, Task(Instance, self._make_disks, self._made_disks))
        engine.register(InstanceStatus.STARTING, Task(Instance, self._start, self._started))
        engine.register(InstanceStatus.STOPPING, Task(Instance, self._stop, self._stopped))

    def run(self, order: InstanceOrder, token: Token | None) -> list[str]:
        with self._context.store.transaction() as tx:
            if (known := tx.recall(token)) is not None:
                return known.split(",")
            made = self._in_stock(tx, order, prepare(tx, order))
            quotas.check(tx, self._context.options.quotas, Instance, len(made))
            quotas.check(tx, self._context.options.quotas, Disk, sum(len(disks) for _, disks in made))
            if order.dry_run:
                raise dry_run_passed()
            for instance, disks in made:
                for disk in disks:
                    tx.put(disk)
                self._context.engine.enter(tx, instance, InstanceStatus.PENDING)
            identifiers = [instance.id for instance, _ in made]
            tx.remember(token, ",".join(identifiers))
            return identifiers

    def _in_stock(self, tx: Transaction, order: InstanceOrder, made: list[Made]) -> list[Made]:
        """As many as there is memory for, if the order is content with them."""
        limit = self._context.options.memory
        first, disks = made[0]
        for disk in disks:
            stock.check_category(self._context.options, first.zone, disk.category, f"{disk.type.capitalize()}Disk")
        if not stock.offered(self._context.options, first.zone, first.type):
            raise ApiError("OperationDenied.NoStock", f"{first.zone} has no instances of the type {first.type}.")
        each = stock.need(first)
        fit = stock.left(tx, limit) // each if each else order.amount
        if fit < (order.least or order.amount):
            raise stock.no_stock(limit)
        return made[:fit]

    def _make_disks(self, identifier: str) -> None:
        with self._context.store.transaction() as tx:
            disks = disks_of(tx, identifier)
        for disk in disks:
            self._disks.make_file(disk)

    def _made_disks(self, tx: Transaction, entity: Moving, failed: bool) -> None:
        disks = disks_of(tx, entity.id)
        if failed:
            for disk in disks:
                self._disks.release(tx, disk)
            return
        instance = find(tx, Instance, entity.id)
        if instance.begins_stopped:
            instance.become(InstanceStatus.STOPPED)
            tx.put(instance)
        for disk in disks:
            disk.status = DiskStatus.IN_USE
            disk.ever_attached = True
            disk.attached_at = time.time()
            tx.put(disk)

    def _request(self, identifiers: Sequence[str], dry_run: bool, ask: Ask, token: Token | None = None) -> list[Moved]:
        """All of them or none."""
        moved = []
        with self._context.store.transaction() as tx:
            if tx.recall(token) is not None:
                return []
            for identifier in identifiers:
                instance = find(tx, Instance, identifier)
                before, after = instance.status, ask(tx, instance)
                self._context.engine.request(tx, instance, after)
                moved.append(Moved(identifier, before, after))
            if dry_run:
                raise dry_run_passed()
            tx.remember(token, "")
        return moved

    def start(self, identifiers: Sequence[str], dry_run: bool) -> list[Moved]:
        def ask(tx: Transaction, instance: Instance) -> InstanceStatus:
            _check_status(instance, InstanceStatus.STOPPED)
            disks = disks_of(tx, instance.id)
            if not any(disk.type == "system" and disk.status is DiskStatus.IN_USE for disk in disks):
                raise ApiError("OperationDenied", f"{instance.id} has no system disk.")
            if any(disk.status is DiskStatus.REINITING for disk in disks):
                raise ApiError("IncorrectDiskStatus", f"A disk of {instance.id} is being put back.")
            stock.check(tx, self._context.options.memory, instance)
            instance.reboot = False
            return InstanceStatus.STARTING

        return self._request(identifiers, dry_run, ask)

    def _start(self, identifier: str) -> None:
        with self._context.store.transaction() as tx:
            instance = find(tx, Instance, identifier)
            names = [disk_lock(disk.id) for disk in disks_of(tx, identifier)]
        runtime = self._context.runtime(instance)
        if instance.reboot:
            # Nobody who asks about a disk waits for as long as the instance takes to shut down.
            with self._context.locks.hold(instance_lock(identifier)):
                runtime.stop(instance, self._grace(instance))
        # A snapshot that is being taken of a disk ends before the disk is written again.
        with self._context.locks.hold_all([*names, instance_lock(identifier)]):
            with self._context.store.transaction() as tx:
                attached = [d for d in disks_of(tx, identifier) if d.status is not DiskStatus.DETACHING]
                ports = open_ports(tx, instance.groups)
            if alive(instance.pid, instance.ticks) and not instance.reboot:
                return
            runtime.stop(instance, 0)
            pid, ticks = runtime.start(instance, attached, ports)
            with self._context.store.transaction() as tx:
                instance = find(tx, Instance, identifier)
                instance.pid, instance.ticks, instance.reboot = pid, ticks, False
                tx.put(instance)

    def _started(self, tx: Transaction, entity: Moving, failed: bool) -> None:
        instance = find(tx, Instance, entity.id)
        instance.started_at = time.time()
        if failed:
            # It may run all the same: it was not stopped for its reboot, or runs and that could not be written down.
            end(instance.id, 0)
            instance.pid = instance.ticks = 0
            instance.reboot = False
        tx.put(instance)

    def stop(self, identifiers: Sequence[str], force: bool, dry_run: bool) -> list[Moved]:
        def ask(tx: Transaction, instance: Instance) -> InstanceStatus:
            _check_status(instance, InstanceStatus.RUNNING)
            instance.force = force
            return InstanceStatus.STOPPING

        return self._request(identifiers, dry_run, ask)

    def reboot(self, identifiers: Sequence[str], force: bool, dry_run: bool) -> list[Moved]:
        def ask(tx: Transaction, instance: Instance) -> InstanceStatus:
            _check_status(instance, InstanceStatus.RUNNING)
            instance.force, instance.reboot = force, True
            return InstanceStatus.STARTING

        return self._request(identifiers, dry_run, ask)

    def delete(self, identifiers: Sequence[str], force: bool, dry_run: bool, token: Token | None = None) -> list[Moved]:
        """Stops it without grace; then the instance is gone with the disks that go with it."""

        def ask(tx: Transaction, instance: Instance) -> InstanceStatus:
            _check_status(instance, InstanceStatus.STOPPED, *([InstanceStatus.RUNNING] if force else []))
            disks = disks_of(tx, instance.id)
            moving = [disk for disk in disks if disk.status is not DiskStatus.IN_USE]
            if moving:
                raise ApiError("IncorrectDiskStatus", f"{moving[0].id} is {moving[0].status.value}.")
            check_not_being_copied(tx, disks)
            instance.force = instance.releasing = True
            return InstanceStatus.STOPPING

        return self._request(identifiers, dry_run, ask, token)

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

    def shut_down(self, marked: Container[str]) -> None:
        """The cloud ends: every instance is stopped, with a short grace, all at once.

        `marked` are those that have processes, whatever is known of them.
        """
        with self._context.store.transaction() as tx:
            running = [i for i in tx.all(Instance) if i.id in marked or alive(i.pid, i.ticks)]
        if running:
            with ThreadPoolExecutor(max_workers=len(running)) as pool:
                list(pool.map(self._shut_down, running))

    def _shut_down(self, instance: Instance) -> None:
        with self._context.locks.hold(instance_lock(instance.id)):
            self._context.runtime(instance).stop(instance, SHUTDOWN_GRACE)
        self._note_end(instance)

    def get(self, identifier: str) -> Instance:
        with self._context.store.transaction() as tx:
            return find(tx, Instance, identifier)

    def offered(self, zone: str, name: str) -> bool:
        """Does the zone have that instance type or disk category?"""
        return stock.offered(self._context.options, zone, name)

    def in_stock(self, instance_type: str) -> bool:
        with self._context.store.transaction() as tx:
            return stock.fits(tx, self._context.options.memory, instance_type)

    def all(self) -> list[Instance]:
        with self._context.store.transaction() as tx:
            return tx.all(Instance)

    def disks(self, identifier: str) -> Sequence[Disk]:
        with self._context.store.transaction() as tx:
            return disks_of(tx, identifier)


def _check_status(instance: Instance, *allowed: InstanceStatus) -> None:
    if instance.status not in allowed or instance.releasing:
        raise wrong_instance_status(instance)
