"""Opening the disks of a job: those of one host at one instant, where its source can do that."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Sequence
from contextlib import ExitStack
from typing import Protocol, runtime_checkable

from wavelift.blocks.errors import SourceError
from wavelift.sources.base import Consistency, PointInTime, Source

log = logging.getLogger(__name__)


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

    def recover(self, disks: Sequence[Source]) -> None:
        """Take down what a killed agent left on the host of these disks."""


def open_all(stack: ExitStack, wanted: Sequence[tuple[Source, str | None]]) -> list[PointInTime]:
    """All of them, in the order given; `stack` closes them."""
    opened: dict[int, PointInTime] = {}
    for indexes in _by_host([source for source, _ in wanted]):
        first, token = wanted[indexes[0]]
        if isinstance(first, Hosted):
            found = first.open_together([wanted[index] for index in indexes])
        else:
            found = [first.open(token)]
        for index, point in zip(indexes, found, strict=True):
            stack.callback(point.close)
            opened[index] = point
    return [opened[index] for index in range(len(wanted))]


def recover_all(sources: Iterable[Source]) -> None:
    """Take down what a killed agent left on the hosts of all sources; what cannot be is logged."""
    known = list(sources)
    for indexes in _by_host(known):
        disks = [known[index] for index in indexes]
        first = disks[0]
        if isinstance(first, Hosted):
            try:
                first.recover(disks)
            except SourceError as error:
                log.warning("what a killed agent may have left stays for now: %s", error.message)


def _by_host(sources: Sequence[Source]) -> list[list[int]]:
    """Indexes of the sources, grouped: those that share a host, and each other one alone."""
    groups: dict[Hashable, list[int]] = {}
    for index, source in enumerate(sources):
        groups.setdefault(source.host if isinstance(source, Hosted) else ("alone", index), []).append(index)
    return list(groups.values())
