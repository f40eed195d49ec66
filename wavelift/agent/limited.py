"""A job under its migration's limit: what the job carries is in force while it runs, and a pause is told."""

from __future__ import annotations

import time
from typing import Any

from wavelift.blocks.limits import Limits
from wavelift.blocks.throttle import Flow, strictest
from wavelift.service.job_context import JobContext

# How soon what a resubmission carries is seen.
LOOK_SECONDS = 0.5


def flow_of(context: JobContext[Any], limits: Limits) -> Flow:
    """For one sender of the job. Migrations share alike what the agent may send."""
    migration = context.spec.migration
    return Flow(migration, limits.of(migration), context.stop.is_set)


class LimitedWatch:
    """The job's context for a replication; its step says when the limit pauses it."""

    def __init__(self, context: JobContext[Any], limits: Limits) -> None:
        self._context = context
        self._limits = limits
        self._migration: str = context.spec.migration
        self._step = ""
        self._told = ""
        self._look_at = 0.0
        self._look()

    def check(self) -> None:
        """Raises `Cancelled`."""
        self._context.check()
        if time.monotonic() >= self._look_at:
            self._look()

    def step(self, name: str) -> None:
        self._step = self._told = name
        self._context.step(name)

    def progress(self, **figures: int) -> None:
        self._context.progress(**figures)
        now = strictest([throttle.now() for throttle in self._limits.of(self._migration)])
        step = self._step
        if now.limit == 0:
            step = "paused" if now.until is None else f"paused until {now.until:%Y-%m-%d %H:%M} UTC"
        if step != self._told:
            self._told = step
            self._context.step(step)

    def _look(self) -> None:
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._limits.order(self._migration, self._context.spec.bandwidth)
