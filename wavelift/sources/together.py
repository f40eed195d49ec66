"""Opening the disks of a job: those of one host at one instant, where its source can do that."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from wavelift.blocks.errors import SourceError
from wavelift.sources.base import Consistency, Extent, PointInTime, Source

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
class Resumable(Protocol):
    """A point in time that can tell what was written since an earlier attempt at the same generation began."""

    def written(self) -> Iterator[Extent] | None:
        """Extents, dirty where it was written since; None when nothing tells."""


@dataclass(frozen=True)
class Since:
    """What a reader has of a disk already: `base`, the token of the last generation; `begun`, that of an attempt that
    was cut short. `migration` is who keeps track: others' tracks are left alone."""

    base: str | None = None
    begun: str | None = None
    migration: str = ""


@runtime_checkable
class Described(Protocol):
    """A source for which opening a point in time is more than a look."""

    def describe(self) -> tuple[int, Consistency]:
        """Size in bytes, and the consistency to expect."""


@runtime_checkable
class Sectored(Protocol):
    """A source whose reader may have to know its sectors: a partition table is written in them."""

    def sector_size(self) -> int:
        """In bytes, as who uses the disk sees it."""


@runtime_checkable
class Hosted(Protocol):
    """A disk of a host that opens all its disks at once."""

    @property
    def host(self) -> Hashable: ...

    def open_together(self, disks: Sequence[tuple[Source, Since]]) -> Sequence[PointInTime]:
        """Points in time, all of one instant, of disks of this host."""

    def forget(self, migration: str) -> None:
        """Leave nothing behind on the host that keeps track of this disk for a migration."""

    def recover(self, disks: Sequence[Source]) -> None:
        """Take down what a killed agent left on the host of these disks."""


def open_all(stack: ExitStack, wanted: Sequence[tuple[Source, Since]]) -> list[PointInTime]:
    """All of them, in the order given; `stack` closes them."""
    opened: dict[int, PointInTime] = {}
    for indexes in _by_host([source for source, _ in wanted]):
        first, since = wanted[indexes[0]]
        if isinstance(first, Hosted):
            found = first.open_together([wanted[index] for index in indexes])
        else:
            found = [first.open(since.base)]
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
