"""Preparing a guest to boot on virtio: inspect, plan, write, and show from the disk that it is so."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wavelift.guest import checks
from wavelift.guest.appliance import Appliance, launched
from wavelift.guest.inspect import Layout, find_system, mount
from wavelift.guest.plan import Guest, Plan, describe, make_plan

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Change:
    """A file of the guest that was changed."""

    path: str
    reason: str
    before: str
    after: str


@dataclass(frozen=True)
class Report:
    """What was found, what was changed, and what shows that the guest is prepared."""

    os: str
    kernels: list[str]
    changes: list[Change]
    checks: list[checks.Check]
    warnings: list[str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def prepare(disks: Sequence[Path], progress: Progress) -> Report:
    """Prepare the guest on `disks` (raw images or block devices, the boot disk first); a second run changes nothing."""
    started = time.monotonic()
    progress("start the appliance", 0.0)
    with launched(disks) as appliance:
        progress("inspect the guest", 0.5)
        layout = find_system(appliance)
        mount(appliance, layout, writable=False)
        guest, plan = _plan(appliance, layout)
        progress("write the changes", 0.7)
        appliance.umount_all()
        if plan.edits:
            _write(appliance, layout, plan)
        progress("check what was written", 0.85)
        evidence = _check(appliance, layout, plan)
        progress("stop the appliance", 0.95)
    progress("done", 1.0)
    return Report(
        os=guest.os,
        kernels=[kernel.version for kernel in guest.kernels],
        changes=[Change(edit.path, edit.reason, digest(edit.before), digest(edit.after)) for edit in plan.edits],
        checks=evidence,
        warnings=list(plan.warnings),
        seconds=round(time.monotonic() - started, 1),
    )


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _plan(appliance: Appliance, layout: Layout) -> tuple[Guest, Plan]:
    guest = describe(appliance, layout.devices, layout.root.place, layout.root.uuid)
    return guest, make_plan(guest, appliance)


def _write(appliance: Appliance, layout: Layout, plan: Plan) -> None:
    mount(appliance, layout, writable=True)
    appliance.check_space(plan.edits)
    for edit in plan.edits:
        appliance.replace(edit.path, edit.after)
    appliance.handle.sync()
    appliance.umount_all()


def _check(appliance: Appliance, layout: Layout, plan: Plan) -> list[checks.Check]:
    """Everything is read again, from the disk, as if nothing were known."""
    appliance.handle.drop_caches(3)
    mount(appliance, layout, writable=False)
    guest, again = _plan(appliance, layout)
    evidence = checks.written(plan, appliance)
    evidence += checks.prepared(guest, again, appliance)
    appliance.umount_all()
    return evidence
