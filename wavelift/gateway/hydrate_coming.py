"""What archives have for the disks of a hydrate job, once it is there: an upload or a disk may still be on its way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from wavelift.archive.archive import Archive
from wavelift.archive.descriptor import ArchiveDescriptor
from wavelift.archive.errors import NoArchive, NoGeneration
from wavelift.archive.layout import Generation
from wavelift.archive.opening import open_archive
from wavelift.blocks.attempts import PACKS, attempt_of
from wavelift.blocks.blockmap import DiskMap
from wavelift.gateway.hydrate_spec import HydrateDisk, HydrateSpec, WrongGeneration
from wavelift.hydrate.crew import asked
from wavelift.hydrate.hydrate import renewable
from wavelift.hydrate.join import require_joined
from wavelift.service.job_context import JobContext
from wavelift.stores.base import Unavailable
from wavelift.stores.disk_label import DiskMissing, DiskRefused
from wavelift.stores.patience import Patience

LOOK_EVERY_SECONDS = 3.0
# What may come yet.
_NOT_YET = (NoArchive, NoGeneration, DiskMissing, DiskRefused, Unavailable, FileNotFoundError)


@dataclass(frozen=True)
class Coming:
    """What an archive has for a disk."""

    disk: HydrateDisk
    archive: Archive
    chain: Sequence[Generation]
    wanted: DiskMap
    sequence: int

    @property
    def subject(self) -> tuple[str, str, str | None]:
        return self.archive.id, self.disk.root, self.disk.base_root


def awaited(context: JobContext[HydrateSpec], number: int, begun: float) -> Coming:
    """What the archive of a disk has, once it is there; waits as long as the job may since it begun (monotonic)."""
    spec = context.spec
    disk = spec.disks[number]
    while True:
        context.check()
        try:
            with renewable():
                return asked(lambda: _found(context, number), context.check)
        except _NOT_YET:
            # As it is now: a resubmission may give it more.
            if (left := begun + context.spec.wait_seconds - time.monotonic()) <= 0:
                raise
        context.step(f"waiting for generation {spec.generation} of {disk.disk} in {_place(disk.archive)}")
        context.stop.wait(min(LOOK_EVERY_SECONDS, left))


def _found(context: JobContext[HydrateSpec], number: int) -> Coming:
    spec = context.spec
    disk = spec.disks[number]
    # Asked for before each call: a resubmission renews the credentials.
    archive = open_archive(lambda: context.spec.disks[number].archive, patience=Patience(stop=context.stop))
    chain = list(archive.chain(spec.generation))
    if (chain[0].root, chain[0].size) != (disk.root, disk.size):
        raise WrongGeneration(disk.disk, archive.name, chain[0], disk.root)
    require_joined(archive, chain, disk.joins or disk.base_root)
    sequence = max((attempt_of(row.sequence) for row in archive.packs(chain[0])), default=0) * PACKS
    return Coming(disk, archive, chain, archive.map(chain[0]), sequence)


def _place(archive: ArchiveDescriptor) -> str:
    if archive.kind == "disks":
        return f"{','.join(archive.folders)} {archive.prefix}".rstrip()
    return f"{archive.service}://{archive.bucket}/{archive.prefix}"
