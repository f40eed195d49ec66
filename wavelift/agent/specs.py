"""What the agent's jobs that send are told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from wavelift.archive.descriptor import ArchiveDescriptor, BucketArchive, DisksArchive
from wavelift.blocks.bandwidth import AnyBandwidth
from wavelift.blocks.descriptor import SinkDescriptor

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
Name = Annotated[str, Field(pattern=NAME)]
AnySink = Annotated[SinkDescriptor | BucketArchive | DisksArchive, Field(discriminator="kind")]


class ReplicateDisk(BaseModel):
    model_config = ConfigDict(extra="forbid")

    disk: Name
    sink: AnySink


class ReplicateSpec(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["replicate"]
    migration: Name
    generation: int = Field(ge=1)
    base: int | None = Field(default=None, ge=1)
    bandwidth: AnyBandwidth | None = None
    disks: list[ReplicateDisk] = Field(min_length=1, max_length=64)


class RepairDisk(BaseModel):
    model_config = ConfigDict(extra="forbid")

    disk: Name
    sink: SinkDescriptor


class RepairSpec(BaseModel):
    """A generation that was replicated here and read back there; all of its disks."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["repair"]
    migration: Name
    generation: int = Field(ge=1)
    bandwidth: AnyBandwidth | None = None
    disks: list[RepairDisk] = Field(min_length=1, max_length=64)


class CheckDisk(BaseModel):
    """`base_root`, in hex, is that of an earlier generation that was checked: it is not read again where the archive
    has it."""

    model_config = ConfigDict(extra="forbid")

    disk: Name
    archive: ArchiveDescriptor
    base_root: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None


class CheckSpec(BaseModel):
    """A generation that archives got, from here or elsewhere."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["check"]
    migration: Name
    generation: int = Field(ge=1)
    disks: list[CheckDisk] = Field(min_length=1, max_length=64)
