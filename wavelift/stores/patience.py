"""Asking a store again: what it refuses for now, or did not answer, with growing pauses."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from wavelift.stores.base import StoreError, Unavailable

T = TypeVar("T")
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 15.0
# For what is under way when all is to end, and how soon that is seen.
GRACE_SECONDS = 0.5
_LOOK_SECONDS = 0.1


class Busy(Unavailable):
    """Too much is asked of the store; it may say for how many seconds it wants no more."""

    default_code = "throttled"

    def __init__(self, message: str, remedy: str, after: float | None = None) -> None:
        super().__init__(message, remedy)
        self.after = after


class Stopped(StoreError):
    """A store was not waited for any longer, as the caller is to end: what was asked may be done or not."""

    default_code = "stopped"

    def __init__(self) -> None:
        super().__init__("The store had not answered when this was told to end.", "Begin again: it goes on.")


class Patience:
    """For how long one call is tried, in seconds, and how to wait; a test brings its own `wait`. Once `stop` is set
    nothing is tried again, and what is under way has half a second left; then nobody waits for it."""

    def __init__(
        self,
        seconds: float = 120.0,
        wait: Callable[[float], object] = time.sleep,
        *,
        stop: threading.Event | None = None,
    ) -> None:
        self._seconds = seconds
        self._wait = wait if stop is None else stop.wait
        self._stop = stop

    def __call__(self, call: Callable[[int], T]) -> T:
        """What `call(number of former tries)` returns. Raises its last error once patience, or what is worth another
        try, has ended, and `Stopped`."""
        end = time.monotonic() + self._seconds
        pause, tries = FIRST_PAUSE_SECONDS, 0
        while True:
            try:
                return call(tries) if self._stop is None else _unless(self._stop, call, tries)
            except StoreError as error:
                # Senders that were refused together must not come back together.
                wanted = pause * random.uniform(0.5, 1)
                if isinstance(error, Busy) and error.after is not None:
                    wanted = max(wanted, error.after)
                if not error.retryable or time.monotonic() + wanted > end:
                    raise
                self._wait(wanted)
                if self._stop is not None and self._stop.is_set():
                    raise Stopped from error
                pause, tries = min(LONGEST_PAUSE_SECONDS, pause * 2), tries + 1


def _unless(stop: threading.Event, call: Callable[[int], T], tries: int) -> T:
    """What the call returns, in a thread of its own: none can be kept from waiting for a socket."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call(tries))
        except BaseException as error:  # noqa: BLE001  raised to who waits for the answer
            answer.set_exception(error)

    threading.Thread(target=run, name="asking", daemon=True).start()
    while not wait([answer], _LOOK_SECONDS).done:
        if stop.is_set() and not wait([answer], GRACE_SECONDS).done:
            raise Stopped
    return answer.result()
