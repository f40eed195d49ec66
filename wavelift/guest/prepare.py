"""Preparing a guest to boot on virtio: inspect, plan, write, and show from the disk that it is so."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wavelift.guest.appliance import Appliance, launched
from wavelift.guest.evidence import Check
from wavelift.guest.facts import Guest, Layout, describe
from wavelift.guest.files import Content, FileEdit, Link
from wavelift.guest.inspect import find_system, mount
from wavelift.guest.journal import undone
from wavelift.guest.plan import Plan, check_prepared, check_written, make_plan
from wavelift.guest.wishes import Wishes

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Change:
    """A file of the guest that was changed."""

    path: str
    reason: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Report:
    """What was found, what was changed, and what shows that the guest is prepared."""

    os: str
    kernels: list[str]
    changes: list[Change]
    checks: list[Check]
    warnings: list[str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def prepare(disks: Sequence[Path], wishes: Wishes, progress: Progress) -> Report:
    """Prepare the guest on `disks` (raw images or block devices, the boot disk first); a second run changes nothing."""
    started = time.monotonic()
    progress("start the appliance", 0.0)
    with launched(disks) as appliance:
        progress("inspect the guest", 0.5)
        layout = find_system(appliance)
        mount(appliance, layout, writable=False)
        guest, plan = _plan(appliance, layout, wishes)
        progress("write the changes", 0.7)
        appliance.umount_all()
        if plan.edits:
            _write(appliance, layout, plan)
        progress("check what was written", 0.85)
        evidence = _check(appliance, layout, wishes, plan)
        progress("stop the appliance", 0.95)
    progress("done", 1.0)
    return Report(
        os=guest.system.name,
        kernels=[kernel.version for kernel in guest.kernels],
        changes=_changes(plan.edits),
        checks=evidence,
        warnings=list(plan.warnings),
        seconds=round(time.monotonic() - started, 1),
    )


def undo(disks: Sequence[Path], progress: Progress) -> list[Change]:
    """Take the last preparation of the guest on `disks` back, from the journal in the guest itself."""
    progress("start the appliance", 0.0)
    with launched(disks) as appliance:
        progress("inspect the guest", 0.5)
        layout = find_system(appliance)
        mount(appliance, layout, writable=True)
        edits = undone(appliance)
        progress("take the changes back", 0.7)
        _apply(appliance, edits)
        progress("stop the appliance", 0.95)
    progress("done", 1.0)
    return _changes(edits)


def _changes(edits: Sequence[FileEdit]) -> list[Change]:
    return [Change(edit.path, edit.reason, digest(edit.before), digest(edit.after)) for edit in edits]


def digest(content: Content) -> str | None:
    if isinstance(content, Link):
        return f"link:{content.target}"
    return None if content is None else f"sha256:{hashlib.sha256(content).hexdigest()}"


def _plan(appliance: Appliance, layout: Layout, wishes: Wishes) -> tuple[Guest, Plan]:
    guest = describe(appliance, layout)
    return guest, make_plan(guest, wishes, appliance)


def _write(appliance: Appliance, layout: Layout, plan: Plan) -> None:
    mount(appliance, layout, writable=True)
    _apply(appliance, plan.edits)


def _apply(appliance: Appliance, edits: Sequence[FileEdit]) -> None:
    appliance.check_space(edits)
    for edit in edits:
        appliance.apply(edit)
    appliance.handle.sync()
    appliance.umount_all()


def _check(appliance: Appliance, layout: Layout, wishes: Wishes, plan: Plan) -> list[Check]:
    """Everything is read again, from the disk, as if nothing were known."""
    appliance.handle.drop_caches(3)
    mount(appliance, layout, writable=False)
    guest, _ = _plan(appliance, layout, wishes)
    evidence = check_written(plan, appliance) + check_prepared(guest, wishes, appliance)
    appliance.umount_all()
    return evidence
