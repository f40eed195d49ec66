"""What every source offers: a point in time with extents and reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable


class Consistency(StrEnum):
    """What a reader may expect of the content; the weakest of a host's disks holds for all of them."""

    OFFLINE = "offline"  # nobody writes: a machine that is off, an image that was copied
    FROZEN = "file systems frozen"
    CRASH = "crash-consistent"  # one instant, as after a power cut
    MOVING = "changing while read"


@dataclass(frozen=True)
class Extent:
    """A run of bytes. `dirty` (changed since the token) and `zero` are independent: a discard is both."""

    start: int
    length: int
    dirty: bool
    zero: bool


class PointInTime(Protocol):
    """A disk's content at one moment. `size` in bytes; `token` names the moment for the next `open`."""

    @property
    def consistency(self) -> Consistency: ...

    @property
    def size(self) -> int: ...

    @property
    def token(self) -> str: ...

    def extents(self) -> Iterator[Extent]:
        """Gapless, in order, from 0 to `size`."""

    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill the view; safe from several threads. Raises when the source has fewer bytes."""

    def close(self) -> None: ...


@runtime_checkable
class Cached(Protocol):
    """A point in time read through this machine's page cache."""

    def drop_cache(self, offset: int, length: int) -> None:
        """The next read of these bytes comes from the medium."""


class Source(Protocol):
    @property
    def kind(self) -> str: ...

    def open(self, token: str | None = None) -> PointInTime:
        """`token` of an earlier moment lets a tracker tell what changed; None means everything did."""
