"""The sample job: read some blocks of the volumes back and hold them against digests that the caller knows."""

from __future__ import annotations

import mmap
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wavelift.blocks.digest import BLOCK
from wavelift.blocks.readback import Uncached
from wavelift.blocks.sample import differing
from wavelift.gateway.jobs import VerifyDisk
from wavelift.gateway.volumes import Volumes
from wavelift.service.job_context import JobContext

MAX_BLOCKS = 4096
Offset = Annotated[int, Field(ge=0, multiple_of=BLOCK)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class SampleDisk(VerifyDisk):
    """`blocks`: (offset in bytes, digest in hex)."""

    blocks: list[tuple[Offset, Digest]] = Field(max_length=MAX_BLOCKS)

    @model_validator(mode="after")
    def _within(self) -> SampleDisk:
        if any(offset >= self.size for offset, _ in self.blocks):
            raise ValueError(f"a block of disk {self.disk} lies behind its end")
        return self


class SampleSpec(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["sample"]
    migration: str = Field(min_length=1, max_length=256)
    generation: int = Field(ge=1)
    disks: list[SampleDisk] = Field(min_length=1, max_length=64)


def read_sample(volumes: Volumes, context: JobContext[SampleSpec]) -> dict[str, Any]:
    """What of the sample differs, by disk. Raises `VolumeNotAttached`, `VolumeTooSmall`, OSError."""
    spec = context.spec
    context.step("waiting")
    with volumes.turns.reading([disk.volume for disk in spec.disks], context.check):
        context.step("reading back")
        found = [_wrong(volumes, disk, context) for disk in spec.disks]
    return {
        "disks": [
            {
                "disk": disk.disk,
                "volume": disk.volume,
                "blocks": len(disk.blocks),
                "differing": [{"offset": at, "length": min(BLOCK, disk.size - at)} for at in wrong],
            }
            for disk, wrong in zip(spec.disks, found, strict=True)
        ],
        "differing_blocks": sum(map(len, found)),
    }


def _wrong(volumes: Volumes, disk: SampleDisk, context: JobContext[SampleSpec]) -> list[int]:
    volume = volumes.holding(disk.volume, disk.disk, disk.size)
    buffer = mmap.mmap(-1, BLOCK)
    with Uncached(volume.path) as source:
        blocks = [(offset, bytes.fromhex(digest)) for offset, digest in disk.blocks]
        return list(differing(blocks, disk.size, lambda at, length: source.read(buffer, at, length), context.check))
