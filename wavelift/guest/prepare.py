"""Preparing a guest to boot on virtio: inspect, plan, write, and show from the disk that it is so."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wavelift.guest.appliance import Appliance, launched
from wavelift.guest.cleanup.selinux import new_labels
from wavelift.guest.evidence import Check
from wavelift.guest.facts import Guest, Layout, describe
from wavelift.guest.files import DirectoryFiles, FileEdit
from wavelift.guest.inspect import find_system, mount
from wavelift.guest.journal import folder_on, undone
from wavelift.guest.plan import Plan, check_prepared, check_written, make_plan
from wavelift.guest.report import Change, Report, changes
from wavelift.guest.volumes import gpt, grow
from wavelift.guest.windows import inspection
from wavelift.guest.windows.files import real
from wavelift.guest.windows.inspection import WindowsGuest
from wavelift.manifest.wishes import Wishes

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Order:
    """`disks`: raw images or block devices, in the guest's own order, the boot disk first. `keys`: files with the
    passphrases of encrypted volumes. `virtio_win`: the folder with its drivers, which Windows needs."""

    disks: Sequence[Path]
    wishes: Wishes = field(default_factory=Wishes)
    keys: Sequence[Path] = ()
    virtio_win: Path | None = None


def plan(order: Order, progress: Progress) -> Report:
    """What `prepare` would change. Nothing is written."""
    started = time.monotonic()
    progress("start the appliance", 0.0)
    repairs = [gpt.needed_repair(disk) for disk in order.disks]
    with launched(order.disks, writable=False) as appliance:
        progress("inspect the guest", 0.5)
        layout = find_system(appliance, order.keys)
        mount(appliance, layout, writable=False)
        guest, found = _plan(appliance, layout, order)
        appliance.check_space(found.edits)
        progress("stop the appliance", 0.95)
    progress("done", 1.0)
    needed = [f"partition table: {reason}" for each in repairs if each for reason in each.reasons]
    return _report(guest, found, [], started, needed)


def prepare(order: Order, progress: Progress) -> Report:
    """A second run changes nothing."""
    started = time.monotonic()
    progress("start the appliance", 0.0)
    repaired = [done for disk in order.disks if (done := gpt.repair(disk))]
    with launched(order.disks) as appliance:
        progress("inspect the guest", 0.5)
        layout = find_system(appliance, order.keys)
        mount(appliance, layout, writable=False)
        guest, found = _plan(appliance, layout, order)
        appliance.umount_all()
        grown = _grown(appliance, layout, progress) if order.wishes.grow and isinstance(guest, Guest) else ([], [])
        progress("write the changes", 0.7)
        if found.edits:
            mount(appliance, layout, writable=True)
            _apply(appliance, found.edits, found.labels)
        progress("check what was written", 0.85)
        evidence = _check(appliance, layout, order, found)
        progress("stop the appliance", 0.95)
    progress("done", 1.0)
    shown = [*(Check("partition table", reason) for each in repaired for reason in each.reasons), *grown[0], *evidence]
    return _report(guest, found, shown, started, grown[1])


def undo(order: Order, progress: Progress) -> list[Change]:
    """Take the last preparation back, from the journal in the guest itself."""
    progress("start the appliance", 0.0)
    with launched(order.disks) as appliance:
        progress("inspect the guest", 0.5)
        layout = find_system(appliance, order.keys)
        mount(appliance, layout, writable=True)
        edits = undone(appliance, real(appliance, folder_on(layout.root.kind)))
        progress("take the changes back", 0.7)
        _apply(appliance, edits, new_labels(edits, appliance) or {})
        progress("stop the appliance", 0.95)
    progress("done", 1.0)
    return changes(edits)


def _grown(appliance: Appliance, layout: Layout, progress: Progress) -> tuple[list[Check], list[str]]:
    """What grew, or why nothing did."""
    progress("grow the last partition", 0.6)
    grown = grow.grow(appliance, layout)
    return ([], [f"not grown: {grown}"]) if isinstance(grown, str) else ([grown], [])


def _report(
    guest: Guest | WindowsGuest, found: Plan, evidence: Sequence[Check], started: float, warnings: Sequence[str] = ()
) -> Report:
    return Report(
        os=guest.system.name,
        firmware=guest.layout.firmware,
        kernels=[kernel.version for kernel in guest.kernels] if isinstance(guest, Guest) else [],
        changes=changes(found.edits),
        checks=list(evidence),
        warnings=[*found.warnings, *warnings],
        seconds=round(time.monotonic() - started, 1),
    )


def _plan(appliance: Appliance, layout: Layout, order: Order) -> tuple[Guest | WindowsGuest, Plan]:
    guest = _windows(appliance, layout, order) if layout.root.kind == "ntfs" else describe(appliance, layout)
    return guest, make_plan(guest, order.wishes, appliance)


def _windows(appliance: Appliance, layout: Layout, order: Order) -> WindowsGuest:
    drivers = DirectoryFiles(order.virtio_win) if order.virtio_win else None
    return inspection.describe(inspection.find_windows(appliance, appliance.head), layout, drivers)


def _apply(appliance: Appliance, edits: Sequence[FileEdit], labels: Mapping[str, str | None]) -> None:
    appliance.check_space(edits)
    for edit in edits:
        appliance.apply(edit)
    for path, label in labels.items():
        if label is not None:
            appliance.handle.lsetxattr("security.selinux", label, len(label), path)
    appliance.handle.sync()
    appliance.umount_all()


def _check(appliance: Appliance, layout: Layout, order: Order, found: Plan) -> list[Check]:
    """Everything is read again, from the disk, as if nothing were known."""
    appliance.handle.drop_caches(3)
    mount(appliance, layout, writable=False)
    guest, _ = _plan(appliance, layout, order)
    evidence = check_written(found, appliance) + check_prepared(guest, order.wishes, appliance)
    appliance.umount_all()
    return evidence
