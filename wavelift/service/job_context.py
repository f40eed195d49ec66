"""A handler's view of its job: what it is to do, whether it is to end, and whom it tells."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from wavelift.service.job_store import JobStore
from wavelift.service.jobs import Moved, Progress

S = TypeVar("S", bound=BaseModel)
REPORT_EVERY_SECONDS = 1.0
RATE_WINDOW_SECONDS = 10.0


class Cancelled(Exception):
    """Raised inside a handler at its next check after a cancel or a stop of the service."""


@dataclass
class Live:
    """One attempt at a job, as its handler and those who ask about it share it."""

    stop: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    spec: dict[str, Any] = field(default_factory=dict)
    step: str = ""
    progress: Progress = field(default_factory=Progress)
    saved_at: float = 0.0
    # The first report of an attempt tells what former ones did.
    begun: bool = False
    samples: deque[tuple[float, int]] = field(default_factory=deque)


class JobContext(Generic[S]):
    """A handler's view of its job."""

    def __init__(self, key: str, attempt: int, model: type[S], live: Live, store: JobStore, moved: Moved) -> None:
        self.key = key
        self.attempt = attempt
        self._model = model
        self._live = live
        self._store = store
        self._moved = moved
        self._read: tuple[dict[str, Any], S] | None = None

    @property
    def spec(self) -> S:
        """The spec as it is now: a resubmission may have replaced its credentials meanwhile."""
        raw = self._live.spec
        # Asked for with every pack, and replaced as a whole.
        if self._read is None or raw is not self._read[0]:
            self._read = raw, self._model.model_validate(raw)
        return self._read[1]

    @property
    def stop(self) -> threading.Event:
        """Set when the handler has to end; for code that waits on something else."""
        return self._live.stop

    def check(self) -> None:
        """Raises `Cancelled` when the job has to end."""
        if self._live.stop.is_set():
            raise Cancelled(self.key)

    def step(self, name: str) -> None:
        self._live.step = name
        self._store.report(self.key, name, self._live.progress)

    def progress(
        self,
        *,
        total: int,
        done: int,
        wire: int = 0,
        read: int = 0,
        skipped: int = 0,
        written: int = 0,
        verified: int = 0,
    ) -> None:
        """Report bytes. The rate is that of the last ten seconds, so a stall shows."""
        live = self._live
        now = time.monotonic()
        live.samples.append((now, done))
        while len(live.samples) > 2 and now - live.samples[0][0] > RATE_WINDOW_SECONDS:
            live.samples.popleft()
        since, before = live.samples[0]
        rate = max(0.0, (done - before) / (now - since)) if now - since > 0.05 else 0.0
        eta = (total - done) / rate if rate > 0 else None
        former, live.progress = (
            live.progress,
            Progress(
                total_bytes=total,
                done_bytes=done,
                read_bytes=read,
                skipped_bytes=skipped,
                wire_bytes=wire,
                written_bytes=written,
                verified_bytes=verified,
                bytes_per_second=rate,
                eta_seconds=eta,
            ),
        )
        if live.begun:
            self._moved.add(former, live.progress)
        live.begun = True
        if now - live.saved_at >= REPORT_EVERY_SECONDS or done >= total:
            live.saved_at = now
            self._store.report(self.key, live.step, live.progress)
