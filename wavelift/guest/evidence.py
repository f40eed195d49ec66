"""Post-conditions: read again from the disk; what does not hold is an error, never a warning."""

from __future__ import annotations

from dataclasses import dataclass

REMEDY = "this volume will not boot as it is; make a new clone and try again, and report it if it happens again"


@dataclass(frozen=True)
class Check:
    """Something that was shown, and by what."""

    name: str
    evidence: str
