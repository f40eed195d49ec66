"""Throttles that senders share, changed while they send: bytes on the wire, windows of the week, fair turns."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from wavelift.blocks.bandwidth import Bandwidth
from wavelift.blocks.bucket import Bucket, Turns, chunk_of
from wavelift.blocks.errors import SinkError

# How soon one who waits hears of its stop, which is not this module's to listen to.
HEAR_SECONDS = 0.1
# The clock on the wall may be put: windows are looked at again, however far the next one is.
LOOK_SECONDS = 30.0


class Stopped(SinkError):
    """The copy was told to end while it waited to send."""

    default_code = "stopped"

    def __init__(self) -> None:
        super().__init__("The copy was told to end.", "Submit it again to go on.")


class Clock:
    """Time as a throttle sees it; a test brings its own."""

    def seconds(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def wait(self, turn: threading.Condition, seconds: float) -> None:
        turn.wait(seconds)


@dataclass(frozen=True)
class Now:
    """The limit in force (bytes per second, 0 paused, None none) and when another follows, None if never."""

    limit: int | None
    until: datetime | None


class Throttle:
    """One limit for all that send through it; each says in which lane (a job, a migration) it is."""

    def __init__(self, bandwidth: Bandwidth | None = None, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._turns = Turns()
        self._bucket = Bucket(0, 0.0)
        self._now = Now(None, None)
        self._look_at = 0.0
        self._waited = 0.0
        self._bandwidth = Bandwidth()
        self.change(bandwidth or Bandwidth())

    @property
    def bandwidth(self) -> Bandwidth:
        return self._bandwidth

    @property
    def waited_seconds(self) -> float:
        """How long senders have waited here, all of them together."""
        return self._waited

    def change(self, bandwidth: Bandwidth) -> None:
        """In force at once, also for those who wait."""
        with self._lock:
            self._bandwidth = bandwidth
            self._look_at = 0.0
            self._look(self._clock.seconds())
            self._wake_first()

    def now(self) -> Now:
        if self._clock.seconds() >= self._look_at:
            with self._lock:
                self._look(self._clock.seconds())
        return self._now

    def chunk(self) -> int | None:
        """How many bytes to ask for at a time; None without a limit."""
        if self._look_at == math.inf and self._now.limit is None:
            # Asked for every chunk of every pack: without limit and windows not even for the time.
            return None
        limit = self.now().limit
        return None if limit is None else chunk_of(limit)

    def take(self, lane: str, count: int, stopped: Callable[[], bool]) -> None:
        """Returns when `count` bytes may go. Raises `Stopped`."""
        began = self._clock.seconds()
        with self._lock:
            ticket = self._turns.join(lane, count, threading.Condition(self._lock))
            try:
                while True:
                    seconds = self._clock.seconds()
                    self._look(seconds)
                    if self._now.limit is None:
                        return
                    if stopped():
                        raise Stopped
                    pause = HEAR_SECONDS
                    if self._turns.first is ticket:
                        delay = self._bucket.delay(count, seconds)
                        if delay == 0:
                            self._bucket.take(count)
                            self._turns.serve(ticket)
                            return
                        pause = min(pause, delay, self._look_at - seconds)
                    self._clock.wait(ticket.turn, pause)
            finally:
                self._turns.leave(ticket)
                self._wake_first()
                self._waited += self._clock.seconds() - began

    def _wake_first(self) -> None:
        if self._turns.first is not None:
            self._turns.first.turn.notify()

    def _look(self, seconds: float) -> None:
        """Find the limit of now, when that may be another than at the last look."""
        if seconds < self._look_at:
            return
        moment = self._clock.now()
        was = self._now.limit
        self._now = Now(self._bandwidth.at(moment), self._bandwidth.until(moment))
        if self._now.limit is not None and was is not None:
            self._bucket.change(self._now.limit, seconds)
        elif self._now.limit is not None:
            self._bucket = Bucket(self._now.limit, seconds)
        self._look_at = math.inf
        if self._now.until is not None:
            self._look_at = seconds + min(LOOK_SECONDS, max(0.001, (self._now.until - moment).total_seconds()))
        elif self._bandwidth.windows:
            self._look_at = seconds + LOOK_SECONDS


class Flow:
    """One sender's way through all the throttles above it, in its lane."""

    def __init__(
        self, lane: str, throttles: Sequence[Throttle] = (), stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self.lane = lane
        self._throttles = throttles
        self._stopped = stopped
        self.held_seconds = 0.0

    def take(self, wanted: int) -> int:
        """How many bytes may go now, one at least; waits for them. Raises `Stopped`."""
        chunks = [chunk for throttle in self._throttles if (chunk := throttle.chunk()) is not None]
        if not chunks:
            return wanted
        count = min(wanted, *chunks)
        began = time.monotonic()
        for throttle in self._throttles:
            throttle.take(self.lane, count, self._stopped)
        self.held_seconds += time.monotonic() - began
        return count

    def check(self) -> None:
        """Raises `Stopped`."""
        if self._stopped():
            raise Stopped

    def now(self) -> Now:
        """The strictest of the limits in force; of pauses the one that ends last."""
        return strictest([throttle.now() for throttle in self._throttles])


def strictest(limits: Sequence[Now]) -> Now:
    limited = [(now.limit, now.until) for now in limits if now.limit is not None]
    if not limited:
        return Now(None, None)
    lowest = min(limit for limit, _ in limited)
    untils = [until for limit, until in limited if limit == lowest]
    return Now(lowest, None if None in untils else max(until for until in untils if until is not None))
