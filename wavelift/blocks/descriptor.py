"""Where a generation of a volume goes: a small serialisable value that crosses the seams between services."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wavelift.pinning import pin_of

DEFAULT_PACK_BYTES = 4 << 20
MIN_PACK_BYTES = 2 << 20


class SinkDescriptor(BaseModel):
    """`token` is a scoped, short-lived credential; it stays out of the text form of this value.

    `fingerprint` is that of the gateway's certificate, as hex: an https URL needs it, an http URL cannot have it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["gateway"] = "gateway"
    url: str = Field(pattern="^https?://")
    fingerprint: str = ""
    volume: str
    generation: int = Field(ge=1)
    token: str = Field(repr=False)
    max_pack_bytes: int = Field(default=DEFAULT_PACK_BYTES, ge=MIN_PACK_BYTES, le=64 << 20)

    @property
    def peer(self) -> str:
        """Whom a connection is with; one with another cannot be used for this."""
        return f"{self.url} {self.fingerprint}"

    @model_validator(mode="after")
    def _pinned(self) -> SinkDescriptor:
        pin_of(self.url, self.fingerprint)
        return self
