"""What a hydrate job is told, and what it refuses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wavelift.archive.descriptor import ArchiveDescriptor
from wavelift.archive.layout import Generation
from wavelift.gateway.jobs import Name, VerifyDisk
from wavelift.service.errors import Conflict

Root = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class HydrateDisk(VerifyDisk):
    """`root` is what the generation should have, `base_root` what the volume should hold: null where that is of no
    use, and then everything is written, zeroes too. `joins` is what it was meant to hold where it is known to lack some
    of that: the root that the oldest generation in the archive may build on."""

    root: Root
    base_root: Root | None = None
    joins: Root | None = None
    archive: ArchiveDescriptor


class HydrateSpec(BaseModel):
    """`base` is the generation that the volumes hold. Where an archive, or the generation in it, is not there yet, the
    job waits up to `wait_seconds` for it."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["hydrate"]
    migration: Name
    generation: int = Field(ge=1)
    base: int | None = Field(default=None, ge=1)
    wait_seconds: float = Field(default=0, ge=0)
    disks: list[HydrateDisk] = Field(min_length=1, max_length=64)

    @model_validator(mode="after")
    def _numbered(self) -> HydrateSpec:
        if self.base is None and any(disk.base_root is not None for disk in self.disks):
            raise ValueError("a disk has a base_root, and the base's number is missing")
        return self


class WrongGeneration(Conflict):
    """The archive holds another content under that number. Roots in hex."""

    default_code = "wrong_generation"

    def __init__(self, disk: str, place: str, generation: Generation, root: str) -> None:
        self.disk, self.place, self.found, self.wanted = disk, place, generation.root, root
        super().__init__(
            f"Generation {generation.generation} of {place} has the root {generation.root} and {generation.size} "
            f"bytes; disk {disk} should have the root {root}.",
            "Name the archive of this disk, and the generation that was replicated to it.",
        )


class BaseMismatch(Conflict):
    """A volume does not hold what an increment is to be laid on. Roots in hex; `differing` in bytes, None where the
    archive does not have the base to compare with."""

    default_code = "base_mismatch"

    def __init__(self, disk: str, volume: str, base: int, wanted: str, found: str, differing: int | None) -> None:
        self.disk, self.volume, self.wanted, self.found, self.differing = disk, volume, wanted, found, differing
        much = "how much differs is not known here" if differing is None else f"{differing} bytes differ"
        super().__init__(
            f"Disk {disk}: volume {volume} should hold generation {base} with the root {wanted}, and holds {found}; "
            f"{much}. Nothing was written.",
            f"Hydrate generation {base} first, or this one without a base.",
        )
