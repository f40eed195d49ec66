"""A sample of what was replicated, with its digests, for whoever reads the volumes: no disk is read for it."""

from __future__ import annotations

import secrets

from pydantic import BaseModel, Field

from wavelift.agent.state import MigrationState
from wavelift.blocks.sample import draw
from wavelift.service.errors import NotFound

MAX_BLOCKS = 4096
# Of eight blocks that hold data one that holds none: whether zeroes arrived is to be seen, too.
ZERO_SHARE = 8


class WantedSample(BaseModel):
    """`blocks` of each disk at most; the same `seed` draws the same blocks of a generation."""

    blocks: int = Field(default=1024, ge=8, le=MAX_BLOCKS)
    seed: int | None = Field(default=None, ge=0, lt=1 << 64)


class DiskSample(BaseModel):
    """`blocks`: (offset in bytes, digest in hex). The chances, 0 to 1, are at least those of drawing a damaged block
    when one block that holds data is damaged, and when one in a hundred is."""

    disk: str
    size: int
    data_blocks: int
    zero_blocks: int
    chance_one_block: float
    chance_one_percent: float
    blocks: list[tuple[int, str]]


class SampleAnswer(BaseModel):
    migration: str
    generation: int
    seed: int
    disks: list[DiskSample]


def sample_of(state: MigrationState, generation: int, wanted: WantedSample) -> SampleAnswer:
    """Raises `NotFound` unless the generation was replicated last, and `MapError`."""
    seed = secrets.randbits(64) if wanted.seed is None else wanted.seed
    zeroes = wanted.blocks // ZERO_SHARE
    disks = []
    for disk in state.known(generation).volumes:
        found = state.maps(disk).load(generation)
        if found is None:
            raise NotFound(f"The block map of disk {disk} is not here any more.", "Replicate a new generation.")
        sample = draw(found, wanted.blocks - zeroes, zeroes, seed)
        disks.append(
            DiskSample(
                disk=disk,
                size=found.size,
                data_blocks=sample.data_blocks,
                zero_blocks=sample.zero_blocks,
                chance_one_block=sample.chance(0),
                chance_one_percent=sample.chance(0.01),
                blocks=[(offset, digest.hex()) for offset, digest in sample.blocks],
            )
        )
    return SampleAnswer(migration=state.migration, generation=generation, seed=seed, disks=disks)
