"""On which gateways of a wave a migration's disks lie.

It follows from the manifest alone, so migrations that start at the same moment never compete for the same slots
(docs/decisions/0020-shared-gateways.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from storage_backends.base import Labels, Role
from wavelift.manifest.schema import Manifest

# An ECS instance has so many data disks.
SLOTS = 16


@dataclass(frozen=True)
class Place:
    """Slots on a gateway, by its number in the wave; `used` is what the wave's migrations have on it, all together."""

    number: int
    slots: int
    used: int


def places(manifest: Manifest, migration: str) -> list[Place]:
    """Where a migration's disks lie: together where they fit. The first gateway of its vSwitch that has room, in the
    order of the manifest."""
    taken: list[tuple[str, int]] = []
    found: list[tuple[int, int]] = []
    for each in manifest.migrations:
        for slots in _demand(len(each.source.disks)):
            fits = (
                number
                for number, (vswitch, used) in enumerate(taken)
                if vswitch == each.target.vswitch and used + slots <= SLOTS
            )
            if (number := next(fits, None)) is None:
                number = len(taken)
                taken.append((each.target.vswitch, 0))
            taken[number] = (each.target.vswitch, taken[number][1] + slots)
            if each.name == migration:
                found.append((number, slots))
    return [Place(number + 1, slots, taken[number][1]) for number, slots in found]


def _demand(disks: int) -> list[int]:
    """Slots on each gateway. Beside the replicas lie their clones, or a clone and what it is written onto; where both
    do not fit, they take turns."""
    if disks > SLOTS:
        return [SLOTS, disks - SLOTS]
    return [min(SLOTS, max(2 * disks, disks + 2))]


def gateway_labels(manifest: Manifest, pool: str, number: int | None = None) -> Labels:
    """A gateway is nobody's, it is the wave run's."""
    return Labels(manifest.wave, "all", pool, Role.GATEWAY, number=number)
