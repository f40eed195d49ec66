"""The arithmetic of a throttle: a token bucket, and whose turn it is. Pure; no clock, no lock."""

from __future__ import annotations

import heapq
import threading
from dataclasses import dataclass, field

# A chunk takes about a tenth of a second: the link is smooth, and whoever waits is soon heard.
CHUNK_SECONDS = 0.1
SMALLEST_CHUNK = 1024
LARGEST_CHUNK = 256 * 1024
# What a sender that was late for a moment may catch up with.
BURST_SECONDS = 0.25
# Less than a clock tells; it is owed, too.
SHORTEST_SECONDS = 1e-6


def chunk_of(rate: int) -> int:
    """How many bytes go out at a time under a limit of `rate` bytes per second."""
    return min(LARGEST_CHUNK, max(SMALLEST_CHUNK, int(rate * CHUNK_SECONDS)))


class Bucket:
    """Tokens for bytes; never more of them than a quarter of a second's, or one chunk."""

    def __init__(self, rate: int, now: float) -> None:
        self._rate = rate
        self._level = 0.0
        self._at = now

    def change(self, rate: int, now: float) -> None:
        self._settle(now)
        self._rate = rate
        self._level = min(self._level, self._burst)

    def delay(self, count: int, now: float) -> float:
        """Seconds until `count` bytes may go; infinite while paused."""
        self._settle(now)
        if self._rate == 0:
            return float("inf")
        # What was asked for under a higher limit need not fit: the rest is owed.
        delay = (min(count, self._burst) - self._level) / self._rate
        return 0.0 if delay < SHORTEST_SECONDS else delay

    def take(self, count: int) -> None:
        self._level -= count

    @property
    def _burst(self) -> float:
        return max(self._rate * BURST_SECONDS, chunk_of(self._rate))

    def _settle(self, now: float) -> None:
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._rate)
        self._at = now


@dataclass(order=True)
class Ticket:
    """A place in the queue; `turn` is notified when it has become the first."""

    start: int
    number: int
    turn: threading.Condition = field(compare=False)


class Turns:
    """Start-time fair queueing: lanes that wait share alike, however many senders each of them has."""

    def __init__(self) -> None:
        self._waiting: list[Ticket] = []
        self._ends: dict[str, int] = {}
        self._served = 0
        self._number = 0

    @property
    def first(self) -> Ticket | None:
        return self._waiting[0] if self._waiting else None

    def join(self, lane: str, count: int, turn: threading.Condition) -> Ticket:
        start = max(self._served, self._ends.get(lane, 0))
        self._ends[lane] = start + count
        self._number += 1
        ticket = Ticket(start, self._number, turn)
        heapq.heappush(self._waiting, ticket)
        return ticket

    def serve(self, ticket: Ticket) -> None:
        """It was its turn, and its bytes went."""
        self._served = max(self._served, ticket.start)

    def leave(self, ticket: Ticket) -> None:
        self._waiting.remove(ticket)
        heapq.heapify(self._waiting)
        if not self._waiting:
            # Nobody contends: what was used before counts for nothing.
            self._ends.clear()
            self._served = 0
