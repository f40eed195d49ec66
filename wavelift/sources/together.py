"""Opening the disks of a job: those of one host at one instant, where its source can do that."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from typing import Protocol, runtime_checkable

from wavelift.sources.base import Consistency, PointInTime, Source


@runtime_checkable
class Tracked(Protocol):
    """A point in time whose source keeps track of changes. When `tracked`, an extent that is not dirty is as it
    was at the token's moment; `notes` say why not, if not."""

    @property
    def tracked(self) -> bool: ...

    @property
    def notes(self) -> Sequence[str]: ...


@runtime_checkable
class Described(Protocol):
    """A source for which opening a point in time is more than a look."""

    def describe(self) -> tuple[int, Consistency]:
        """Size in bytes, and the consistency to expect."""


@runtime_checkable
class Hosted(Protocol):
    """A disk of a host that opens all its disks at once."""

    @property
    def host(self) -> Hashable: ...

    def open_together(self, disks: Sequence[tuple[Source, str | None]]) -> Sequence[PointInTime]:
        """Points in time, all of one instant, of (disk of this host, token)."""

    def forget(self) -> None:
        """Leave nothing behind on the host that keeps track of this disk."""


def open_all(stack: ExitStack, wanted: Sequence[tuple[Source, str | None]]) -> list[PointInTime]:
    """All of them, in the order given; `stack` closes them."""
    opened: dict[int, PointInTime] = {}
    groups: dict[Hashable, list[int]] = {}
    for index, (source, _) in enumerate(wanted):
        groups.setdefault(source.host if isinstance(source, Hosted) else ("alone", index), []).append(index)
    for indexes in groups.values():
        first, token = wanted[indexes[0]]
        if isinstance(first, Hosted):
            found = first.open_together([wanted[index] for index in indexes])
        else:
            found = [first.open(token)]
        for index, point in zip(indexes, found, strict=True):
            stack.callback(point.close)
            opened[index] = point
    return [opened[index] for index in range(len(wanted))]
