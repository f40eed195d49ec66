"""A live QEMU/KVM guest, over a QMP socket of its own; nothing is installed in the guest, and it runs on.

Each opening begins a new dirty bitmap at its instant, and its token names that bitmap. It records until a later token
comes back: of a base, which tells what changed since the last committed cycle, or of an attempt that was cut short,
which tells what of the bytes it sent is out of date.
"""

from __future__ import annotations

import hashlib
import re
import threading
import uuid
from collections.abc import Hashable, Iterator, Sequence, Set
from pathlib import Path

from wavelift.blocks.errors import SourceError
from wavelift.sources.base import Consistency, Extent, Source
from wavelift.sources.qemu_disks import PREFIX, GuestDisk, drop, find_disk, require_survival, sweep, unusable
from wavelift.sources.qemu_moment import Moment, Wanted
from wavelift.sources.qmp import MonitorBusy, Qmp
from wavelift.sources.together import Since

_TOKEN = re.compile(rf"qemu:({PREFIX}[0-9a-f]+-[0-9a-f]+):([0-9]+)")


class QemuGuest:
    """One guest. `agent`: the socket of its guest agent. `scratch`: where the space for what the guest overwrites
    while a moment is read is taken from."""

    def __init__(self, monitor: Path, scratch: Path, agent: Path | None = None) -> None:
        self.monitor = monitor
        self.agent = agent
        self._scratch = scratch
        self._lock = threading.Lock()
        self._qmp: Qmp | None = None

    def open(self, wanted: Sequence[tuple[str, Since]]) -> list[QemuPointInTime]:
        """All of these disks, at one instant. Raises `MonitorBusy`, `GuestGone`, `SourceError`."""
        with self._lock:
            if self._qmp is not None:
                raise MonitorBusy(
                    f"Another job of this agent reads the guest at {self.monitor}.", "Wait until it has ended."
                )
            qmp = self._qmp = Qmp(self.monitor)
        try:
            require_survival(qmp)
            sweep(qmp)
            disks = [find_disk(qmp, name) for name, _ in wanted]
            plans, notes = [], []
            for disk, (name, since) in zip(disks, wanted, strict=True):
                plan, reason = _plan(disk, since)
                _keep_only(qmp, disk, since.migration, {plan.since, plan.begun})
                plans.append(plan)
                notes.append([f"disk {name}: {reason}: changes are found by a scan"] if reason else [])
            moment = Moment(qmp, self.monitor, self._scratch, plans, self.agent)
        except BaseException:
            self._end()
            raise
        group = _Group(self, moment, len(plans))
        opened: list[QemuPointInTime] = []
        try:
            for index, plan in enumerate(plans):
                opened.append(QemuPointInTime(group, moment, index, _token(plan), notes[index]))
        except BaseException:
            group.end(len(plans))
            raise
        return opened

    def describe(self, name: str) -> GuestDisk:
        with self._lock:
            if self._qmp is not None:
                return find_disk(self._qmp, name)
            qmp = Qmp(self.monitor)
            try:
                require_survival(qmp)
                # A reader that was killed may have left its filter where the disk is looked for.
                sweep(qmp)
                return find_disk(qmp, name)
            finally:
                qmp.close()

    def recover(self) -> None:
        """Take down what a killed agent left in the guest."""
        with self._lock:
            qmp = Qmp(self.monitor)
            try:
                sweep(qmp)
            finally:
                qmp.close()

    def forget(self, name: str, migration: str) -> None:
        """Remove the bitmaps that a migration has of a disk."""
        with self._lock:
            qmp = Qmp(self.monitor)
            try:
                sweep(qmp)
                _keep_only(qmp, find_disk(qmp, name), migration, set())
            finally:
                qmp.close()

    def _end(self) -> None:
        with self._lock:
            qmp, self._qmp = self._qmp, None
        if qmp is not None:
            qmp.close()


class QemuDisk:
    """One disk of a guest: a node name, a drive's id or a device's id."""

    kind = "qemu"

    def __init__(self, guest: QemuGuest, name: str) -> None:
        self.guest = guest
        self.name = name

    @property
    def host(self) -> Hashable:
        return self.guest

    def open(self, token: str | None = None) -> QemuPointInTime:
        return self.guest.open([(self.name, Since(token))])[0]

    def open_together(self, disks: Sequence[tuple[Source, Since]]) -> list[QemuPointInTime]:
        return self.guest.open([(disk.name, since) for disk, since in disks if isinstance(disk, QemuDisk)])

    def describe(self) -> tuple[int, Consistency]:
        """Frozen where a guest agent was given; a cycle in which it does not answer says so."""
        expected = Consistency.CRASH if self.guest.agent is None else Consistency.FROZEN
        return self.guest.describe(self.name).size, expected

    def sector_size(self) -> int:
        return self.guest.describe(self.name).sector

    def forget(self, migration: str) -> None:
        self.guest.forget(self.name, migration)

    def recover(self, disks: Sequence[Source]) -> None:
        self.guest.recover()


class QemuPointInTime:
    """A disk of the guest as it was at the instant. The last one closed takes the moment down."""

    def __init__(self, group: _Group, moment: Moment, index: int, token: str, notes: list[str]) -> None:
        self._group = group
        self._index = index
        self._export = export = moment.connect(index)
        self._token = token
        self._closed = False
        self.size = export.size
        self.tracked = export.tracked
        self.consistency = export.consistency
        self.notes = notes

    @property
    def token(self) -> str:
        """Raises `SourceError` when the moment was lost meanwhile."""
        self._group.moment.check()
        return self._token

    def extents(self) -> Iterator[Extent]:
        return self._export.extents()

    def written(self) -> Iterator[Extent] | None:
        export = self._group.moment.connect_begun(self._index)
        if export is None:
            return None
        try:
            return iter(list(export.extents()))
        finally:
            export.close()

    def readinto(self, offset: int, view: memoryview) -> None:
        try:
            self._export.readinto(offset, view)
        except SourceError:
            self._group.moment.check()
            raise

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._export.close()
            self._group.end(1)


class _Group:
    """The points in time of one moment: the guest is left when all are closed."""

    def __init__(self, guest: QemuGuest, moment: Moment, count: int) -> None:
        self.moment = moment
        self._guest = guest
        self._left = count
        self._lock = threading.Lock()

    def end(self, count: int) -> None:
        with self._lock:
            self._left -= count
            if self._left != 0:
                return
        try:
            self.moment.close()
        finally:
            self._guest._end()


def _plan(disk: GuestDisk, since: Since) -> tuple[Wanted, str | None]:
    """What to do with a disk, and why its changes cannot be told, when a token says they should."""
    base, reason = _usable(disk, since.base)
    begun, _ = _usable(disk, since.begun)
    return Wanted(disk, base, begun, f"{_prefix(since.migration)}{uuid.uuid4().hex[:16]}"), reason


def _usable(disk: GuestDisk, token: str | None) -> tuple[str | None, str | None]:
    """(bitmap that a token names, why not)."""
    if token is None:
        return None, None
    match = _TOKEN.fullmatch(token)
    if match is None:
        return None, "its last generation was read from another kind of source"
    reason = unusable(disk, match[1], int(match[2]))
    return (None, reason) if reason else (match[1], None)


def _prefix(migration: str) -> str:
    """Of a migration's bitmaps. Names of bitmaps are short, those of migrations may be long."""
    return f"{PREFIX}{hashlib.sha256(migration.encode()).hexdigest()[:16]}-"


def _token(plan: Wanted) -> str:
    return f"qemu:{plan.following}:{plan.disk.size}"


def _keep_only(qmp: Qmp, disk: GuestDisk, migration: str, kept: Set[str | None]) -> None:
    for bitmap in disk.bitmaps:
        if bitmap.startswith(_prefix(migration)) and bitmap not in kept:
            drop(qmp, disk.node, bitmap)
