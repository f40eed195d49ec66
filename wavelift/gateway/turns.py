"""Who may use a volume now: packs, or what reads it as a whole. And which generation its packs may be of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

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
    newest: dict[str, int] = field(default_factory=dict)


class Turns:
    """Kept in memory: a restart of the gateway ends every open pack, too."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._turns: dict[str, _Turn] = {}

    @contextmanager
    def writing(self, volume: str, migration: str, generation: int) -> Iterator[Callable[[], None]]:
        """For one pack. Gives a check to make before each write: a newer generation may come while a sender stalls.

        Raises `VolumeBusy`, `StaleGeneration`, the latter also from the check.
        """

        def check() -> None:
            newest = turn.newest.get(migration, 0)
            if generation < newest:
                raise StaleGeneration(
                    f"Volume {volume} has taken packs of generation {newest}; this one is of generation {generation}.",
                    "Replicate a new generation.",
                )

        with self._changed:
            turn = self._of(volume)
            check()
            if turn.readers:
                raise VolumeBusy(f"Volume {volume} is being read by a job.", "Try again once that job has ended.")
            turn.newest[migration] = generation
            turn.packs += 1
        try:
            yield check
        finally:
            with self._changed:
                turn.packs -= 1
                self._changed.notify_all()

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
