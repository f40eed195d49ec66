"""Where an archive lies, for an agent that fills it or a gateway that reads it: small values that cross the seams."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from wavelift.blocks.descriptor import DEFAULT_PACK_BYTES, MIN_PACK_BYTES

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._=-]{0,199}"
Prefix = Annotated[str, Field(pattern=rf"^({_SEGMENT}(/{_SEGMENT})*)?$", max_length=400)]
PackBytes = Annotated[int, Field(ge=MIN_PACK_BYTES, le=64 << 20)]


class BucketArchive(BaseModel):
    """An archive in a bucket of OSS or S3, under `prefix`. Credentials are scoped to it and short-lived: a resubmission
    of the job renews them. `key` is the archive's key-encryption key in hex, empty where nothing is sealed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["bucket"] = "bucket"
    service: Literal["oss", "s3"]
    endpoint: str = Field(pattern="^https?://")
    bucket: str
    prefix: Prefix
    region: str
    by_path: bool = False
    access_key_id: str = Field(repr=False)
    access_key_secret: str = Field(repr=False)
    token: str = Field(default="", repr=False)
    key: str = Field(default="", repr=False, pattern="^([0-9a-f]{64})?$")
    max_pack_bytes: PackBytes = DEFAULT_PACK_BYTES


class DisksArchive(BaseModel):
    """An archive on offline disks, mounted in `folders` on the machine that opens it, under `prefix` on each of them.
    One plain folder is a set of one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["disks"] = "disks"
    folders: Annotated[list[str], Field(min_length=1, max_length=64)]
    prefix: Prefix
    key: str = Field(default="", repr=False, pattern="^([0-9a-f]{64})?$")
    max_pack_bytes: PackBytes = 16 << 20


ArchiveDescriptor = Annotated[BucketArchive | DisksArchive, Field(discriminator="kind")]
