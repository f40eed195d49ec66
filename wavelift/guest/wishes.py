"""What the user wants of a guest beyond that it boots."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wishes:
    """Nothing: the guest is kept as it is, as far as that can be."""
