"""Whether the receiver of packs reads what this side writes: asked before the first one is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wavelift.blocks.errors import SinkError
from wavelift.blocks.pack_layout import VERSION, VERSIONS, Codec


class FormatMismatch(SinkError):
    """Packs of a version, or with codecs, that the receiver does not read."""

    default_code = "version_mismatch"
    status = 409

    def __init__(self, written: str, read: str, upgrade: str) -> None:
        self.written, self.read, self.upgrade = written, read, upgrade
        super().__init__(f"The agent writes {written}; the gateway reads {read}.", f"Upgrade the {upgrade}.")


def readable() -> dict[str, Any]:
    """What this version reads, for the health of a gateway."""
    return {"versions": list(VERSIONS), "codecs": [codec.name.lower() for codec in Codec]}


def require_reader(reads: Mapping[str, Any]) -> None:
    """Raises `FormatMismatch` unless whoever sent this `readable` reads what this version writes."""
    versions, codecs = list(reads.get("versions", [])), list(reads.get("codecs", []))
    ours = {codec.name.lower() for codec in Codec}
    if VERSION in versions and ours <= set(codecs):
        return
    newer = versions and min(versions) > VERSION
    raise FormatMismatch(
        f"packs up to version {VERSION} with {', '.join(sorted(ours))}",
        f"version {', '.join(map(str, versions)) or 'unknown'} with {', '.join(map(str, codecs)) or 'unknown codecs'}",
        "agent" if newer else "gateway",
    )
