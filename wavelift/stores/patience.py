"""Asking a store again: what it refuses for now, or did not answer, with growing pauses."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from wavelift.stores.base import StoreError, Unavailable

T = TypeVar("T")
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 15.0


class Busy(Unavailable):
    """Too much is asked of the store; it may say for how many seconds it wants no more."""

    default_code = "throttled"

    def __init__(self, message: str, remedy: str, after: float | None = None) -> None:
        super().__init__(message, remedy)
        self.after = after


class Patience:
    """For how long one call is tried, in seconds, and how to wait; a test brings its own `wait`."""

    def __init__(self, seconds: float = 120.0, wait: Callable[[float], None] = time.sleep) -> None:
        self._seconds = seconds
        self._wait = wait

    def __call__(self, call: Callable[[int], T]) -> T:
        """What `call(number of former tries)` returns. Raises its last error once patience, or what is worth another
        try, has ended."""
        end = time.monotonic() + self._seconds
        pause, tries = FIRST_PAUSE_SECONDS, 0
        while True:
            try:
                return call(tries)
            except StoreError as error:
                # Senders that were refused together must not come back together.
                wanted = pause * random.uniform(0.5, 1)
                if isinstance(error, Busy) and error.after is not None:
                    wanted = max(wanted, error.after)
                if not error.retryable or time.monotonic() + wanted > end:
                    raise
                self._wait(wanted)
                pause, tries = min(LONGEST_PAUSE_SECONDS, pause * 2), tries + 1
