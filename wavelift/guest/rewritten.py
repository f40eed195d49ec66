"""A text after a change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rewritten:
    """A text after the change, and what could not be changed, in words."""

    text: str
    warnings: tuple[str, ...] = ()
