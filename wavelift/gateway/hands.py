"""How many of a gateway's jobs work at a time. Others may wait for what is still on its way, as many as there are
volumes, and keep nobody from working."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import BaseModel

from wavelift.service.job_context import JobContext

S = TypeVar("S", bound=BaseModel)
AT_WORK = 4
# An ECS instance has so many data disks, and one may be all that a migration waits for.
WAITING = 16
_LOOK_SECONDS = 0.2


class Hands:
    def __init__(self, count: int = AT_WORK) -> None:
        self._free = threading.BoundedSemaphore(count)

    @contextmanager
    def at_work(self, context: JobContext[Any]) -> Iterator[None]:
        """Raises `Cancelled` while it waits."""
        while not self._free.acquire(timeout=_LOOK_SECONDS):
            context.step("waiting for other jobs")
            context.check()
        try:
            yield
        finally:
            self._free.release()

    def doing(self, run: Callable[[JobContext[S]], dict[str, Any]]) -> Callable[[JobContext[S]], dict[str, Any]]:
        """The same job, done when there is a hand free for it."""

        def done(context: JobContext[S]) -> dict[str, Any]:
            with self.at_work(context):
                return run(context)

        return done
