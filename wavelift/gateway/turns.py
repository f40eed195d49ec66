"""Who may use a volume now: packs, or what reads it as a whole. And which generation, and which attempt at it, its
packs may be of."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from wavelift.blocks.attempts import attempt_of
from wavelift.gateway.owners import Order, Owners
from wavelift.service.errors import Conflict, WaveliftError

LOOK_EVERY_SECONDS = 0.2


class VolumeBusy(WaveliftError):
    """A sender tries again after this, as after any 503."""

    default_code = "volume_busy"
    status = 503


class StaleGeneration(Conflict):
    default_code = "stale_generation"


@dataclass
class _Turn:
    packs: int = 0
    readers: int = 0
    # By migration: the numbers of two migrations say nothing about each other.
    newest: dict[str, Order] = field(default_factory=dict)
    # Records that are being written at this moment, by what their packs are of.
    records: Counter[tuple[str, Order]] = field(default_factory=Counter)


class Turns:
    """Kept in memory, but for whose packs came last: a restart of the gateway ends every open pack, too."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners
        self._changed = threading.Condition()
        self._turns: dict[str, _Turn] = {}

    @contextmanager
    def writing(
        self, volume: str, migration: str, generation: int, sequence: int
    ) -> Iterator[Callable[[], AbstractContextManager[None]]]:
        """For one pack. Gives what each of its writes is to be made in: a newer generation, or a newer attempt at
        this one, may come while a sender stalls, and then none of the older content may be written any more.

        Raises `VolumeBusy`, `StaleGeneration`, OSError, the last two also from there.
        """
        order = generation, attempt_of(sequence)

        def require() -> None:
            newest = turn.newest.get(migration, (0, 0))
            if order < newest:
                raise StaleGeneration(
                    f"Volume {volume} has taken packs of generation {newest[0]}, attempt {newest[1]}; this one is of "
                    f"generation {generation}, attempt {order[1]}.",
                    "Replicate a new generation.",
                )

        @contextmanager
        def record() -> Iterator[None]:
            with self._changed:
                require()
                self._owners.take(volume, migration, order)
                turn.records[migration, order] += 1
            try:
                yield
            finally:
                with self._changed:
                    turn.records[migration, order] -= 1
                    if not turn.records[migration, order]:
                        del turn.records[migration, order]
                        self._changed.notify_all()

        with self._changed:
            turn = self._of(volume)
            require()
            if turn.readers:
                raise VolumeBusy(f"Volume {volume} is being read by a job.", "Try again once that job has ended.")
            turn.newest[migration] = order
            turn.packs += 1
            # None of the older ones begins another record; those under way end before the first of this pack.
            while any(other == migration and older < order for other, older in turn.records):
                self._changed.wait()
        try:
            yield record
        finally:
            with self._changed:
                turn.packs -= 1
                self._changed.notify_all()

    def taken(self, volume: str) -> tuple[str, int, str]:
        """(migration, generation, mark) of the last pack: nothing else was written while the mark is the same."""
        with self._changed:
            return self._owners.about(volume)

    def wrote_itself(self, volume: str) -> None:
        """The gateway is about to change what the volume holds. Raises OSError."""
        with self._changed:
            self._owners.wrote_itself(volume)

    @contextmanager
    def reading(self, volumes: Iterable[str], stop: Callable[[], None]) -> Iterator[None]:
        """Returns once the open packs of these volumes have ended, and keeps new ones away. `stop` may raise."""
        with self._changed:
            turns = [self._of(volume) for volume in volumes]
            for turn in turns:
                turn.readers += 1
        try:
            with self._changed:
                while any(turn.packs for turn in turns):
                    stop()
                    self._changed.wait(LOOK_EVERY_SECONDS)
            yield
        finally:
            with self._changed:
                for turn in turns:
                    turn.readers -= 1

    def _of(self, volume: str) -> _Turn:
        # A volume is found with and without the prefix of its id.
        return self._turns.setdefault(volume.removeprefix("d-"), _Turn())
