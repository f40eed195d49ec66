"""What a migration will create, in order, before anything is created."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from wavelift.manifest.route import Carrier
from wavelift.manifest.schema import Keep, Manifest, Migration, SourceDisk, Target

GIB = 1 << 30
# The steps of a migration, in order: task ids in Airflow, and what progress and plans speak of.
STEPS = (
    "preflight",
    "provision",
    "full_copy",
    "snapshot",
    "incremental_loop",
    "driver_inject",
    "image",
    "boot_verify",
    "cleanup",
)
# What there is to do only where a migration ends in the cloud.
_LANDING = frozenset({"driver_inject", "image", "boot_verify"})
_WAY = {
    Carrier.GATEWAY: "straight to the gateway, read back and compared",
    Carrier.BUCKET: "through the archive",
    Carrier.DISKS: "on disks that are shipped to the gateway",
}
# Smallest size in GiB that ECS accepts, by category and level (CreateDisk, parameter Size).
_SMALLEST = {
    "cloud_essd": 20,
    "cloud_efficiency": 20,
    "cloud_ssd": 20,
    "cloud_essd_entry": 10,
    "cloud_auto": 1,
}
_SMALLEST_ESSD = {"PL0": 1, "PL1": 20, "PL2": 461, "PL3": 1261}
# An instance's system disk is at least this large, whatever its category (RunInstances, SystemDisk.Size).
SMALLEST_SYSTEM_GIB = 20


@dataclass(frozen=True)
class PlannedAction:
    """One line of a plan: the step that does it, what it makes, and how many of them there will be."""

    step: str
    action: str
    kept: bool


def steps_of(migration: Migration) -> tuple[str, ...]:
    """The steps that its route has, in order."""
    return tuple(step for step in STEPS if migration.route.lands or step not in _LANDING)


def smallest_gib(target: Target, *, boot: bool) -> int:
    """The smallest volume, in GiB, that the target's disk category allows for such a disk."""
    smallest = smallest_volume_gib(target.disk_category, target.performance_level)
    return max(smallest, SMALLEST_SYSTEM_GIB) if boot else smallest


def smallest_volume_gib(category: str, level: str | None) -> int:
    """The smallest volume, in GiB, of a category and performance level; 1 for a category that is not known here."""
    if category == "cloud_essd":
        return _SMALLEST_ESSD[level or "PL1"]
    return _SMALLEST.get(category, 1)


def volume_gib(target: Target, disk: SourceDisk, source_bytes: int) -> int:
    """Size in GiB of the volume for a source disk of `source_bytes`; what the manifest says wins."""
    needed = math.ceil(source_bytes / GIB)
    return disk.volume_gib or max(needed, smallest_gib(target, boot=disk.boot))


def plan(manifest: Manifest, sizes: Mapping[str, Mapping[str, int]] | None = None) -> dict[str, list[PlannedAction]]:
    """Per migration, everything it will create. `sizes`: bytes per migration and disk, where already known."""
    return {
        migration.name: list(_actions(migration, (sizes or {}).get(migration.name, {})))
        for migration in manifest.migrations
    }


def _actions(migration: Migration, sizes: Mapping[str, int]) -> Iterator[PlannedAction]:
    disks, target, keep, route = migration.source.ordered, migration.target, set(migration.keep), migration.route
    if route.lands:
        yield PlannedAction("provision", "gateway instance beside the volumes", False)
        for disk in disks:
            yield PlannedAction(
                "provision", f"volume for disk {disk.id}: {_size(target, disk, sizes)}", Keep.VOLUMES in keep
            )
    if route.uses_archive:
        yield PlannedAction("full_copy", f"{len(disks)} archive(s), sealed, one for each disk", not route.lands)
    yield PlannedAction("full_copy", f"generation 1: every block that is not zero, {_WAY[route.carrier(1)]}", False)
    last = migration.sync.cycles + 1
    for generation in range(1, last + 1):
        step = "snapshot" if generation == 1 else "incremental_loop"
        if generation > 1:
            yield PlannedAction(
                step,
                f"generation {generation}: changed blocks only, {migration.sync.interval:g} s later, "
                f"{_WAY[route.carrier(generation)]}",
                False,
            )
        yield PlannedAction(
            step,
            f"{len(disks)} snapshot(s) of generation {generation}",
            not route.lands or (generation == last and Keep.SNAPSHOTS in keep),
        )
    if route.lands:
        yield PlannedAction("driver_inject", f"{len(disks)} clone(s) of generation {last}, made ready to boot", False)
        yield PlannedAction("image", f"{len(disks)} snapshot(s) of the clones", Keep.IMAGE in keep)
        yield PlannedAction("image", "custom image with every disk", Keep.IMAGE in keep)
        yield PlannedAction("boot_verify", f"instance of type {target.instance_type}", Keep.INSTANCE in keep)
        for check in migration.checks:
            yield PlannedAction("boot_verify", f"check: {check}", False)
    yield PlannedAction("cleanup", "everything above that is not kept is deleted, and looked for once more", False)


def _size(target: Target, disk: SourceDisk, sizes: Mapping[str, int]) -> str:
    category = f"{target.disk_category} {target.performance_level or ''}".strip()
    if disk.id in sizes or disk.volume_gib:
        return f"{volume_gib(target, disk, sizes.get(disk.id, 0))} GiB {category}"
    return f"as large as the disk, at least {smallest_gib(target, boot=disk.boot)} GiB, {category}"
