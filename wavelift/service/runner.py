"""Runs jobs on threads: idempotent submit, cooperative cancel, and going on after a restart."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from pydantic import BaseModel, ValidationError

from wavelift.service.errors import Conflict, InvalidRequest, NotFound, NotServing, explain
from wavelift.service.events import JobEvent
from wavelift.service.job_context import Cancelled, JobContext, Live, S
from wavelift.service.job_store import JobStore
from wavelift.service.jobs import JobError, JobState, JobStatus, Moved, unchanging
from wavelift.service.logs import lines_of_job

log = logging.getLogger(__name__)

STORE_PAUSE_SECONDS = 1.0
MOVABLE = ("read", "wire", "written", "verified")


@dataclass(frozen=True)
class JobKind(Generic[S]):
    """A kind of job: its spec (a pydantic model with `kind`) and what runs it."""

    name: str
    model: type[S]
    run: Callable[[JobContext[S]], Mapping[str, Any]]


class JobRunner:
    """Worker threads over a `JobStore`. `start()` also picks up what a former process left behind."""

    def __init__(
        self, store: JobStore, kinds: list[JobKind[Any]], workers: int = 4, moves: Sequence[str] = MOVABLE
    ) -> None:
        """`moves`: what of a job's progress is ever other than 0 here."""
        self._store = store
        self._kinds = {kind.name: kind for kind in kinds}
        self._lock = threading.RLock()
        self._live: dict[str, Live] = {}
        self.moved = Moved(moves)
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._work, name=f"job-{n}", daemon=True) for n in range(workers)]

    def start(self) -> None:
        for key in self._store.in_state(JobState.RUNNING):
            log.info("job %s was running when the service ended: it goes on", key)
            self._store.transition(key, JobState.QUEUED)
        for key in self._store.in_state(JobState.QUEUED):
            if self._store.cancel_requested(key):
                self._store.transition(key, JobState.CANCELLED)
            else:
                self._queue.put(key)
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """End the workers; unfinished jobs stay queued in the store and go on at the next start."""
        self._stopping.set()
        with self._lock:
            for live in self._live.values():
                live.stop.set()
        for _ in self._threads:
            self._queue.put(None)
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def submit(self, key: str, spec: Mapping[str, Any]) -> tuple[JobStatus, bool]:
        """(status, new). Raises `InvalidRequest`, `Conflict` when the key belongs to another spec."""
        kind = self._kinds.get(str(spec.get("kind")))
        if kind is None:
            raise InvalidRequest(
                f"There is no job kind {spec.get('kind')!r}.",
                f"Use one of: {', '.join(sorted(self._kinds))}.",
            )
        try:
            parsed: dict[str, Any] = kind.model.model_validate(spec).model_dump(mode="json")
        except ValidationError as error:
            raise InvalidRequest(f"The spec of job {key!r} is not valid: {_first(error)}.", "Correct it.") from None
        with self._lock:
            known = self._store.find(key)
            if known is None:
                status = self._store.add(key, parsed)
                self._queue.put(key)
                return status, True
            if unchanging(self._store.spec(key)) != unchanging(parsed):
                raise Conflict(f"Job {key!r} exists with another spec.", "Use another key, or the same spec as before.")
            self._store.replace_spec(key, parsed)
            if key in self._live:
                self._live[key].spec = parsed
            if known.state in (JobState.FAILED, JobState.CANCELLED):
                known = self._store.transition(key, JobState.QUEUED)
                self._queue.put(key)
            return self._current(known), False

    def check(self) -> None:
        """Raises `NotServing` when a job that was submitted now would not be run."""
        self._store.check()
        ended = [thread.name for thread in self._threads if thread.ident is not None and not thread.is_alive()]
        if ended:
            raise NotServing(f"The threads {', '.join(ended)} that run jobs have ended.", "Restart the service.")

    def get(self, key: str) -> JobStatus:
        """Raises `NotFound`."""
        return self._current(self._store.get(key))

    def all(self) -> list[JobStatus]:
        return [self._current(job) for job in self._store.all()]

    def cancel(self, key: str) -> JobStatus:
        """Cancel and wait until the handler has ended. Raises `NotFound`. Harmless on a finished job."""
        with self._lock:
            job = self._store.get(key)
            if job.state.final:
                return job
            self._store.request_cancel(key)
            if job.state is JobState.QUEUED:
                return self._store.transition(key, JobState.CANCELLED)
            live = self._live.get(key)
        if live is not None:
            live.stop.set()
            live.done.wait()
        return self._store.get(key)

    def forget(self, keys: list[str]) -> None:
        """Cancel these jobs and remove every trace of them."""
        for key in keys:
            self.cancel(key)
            with self._lock:
                self._store.remove(key)

    def events(self, after: int, limit: int, key: str | None) -> list[JobEvent]:
        return self._store.events(after, limit, key)

    def models(self) -> Mapping[str, type[BaseModel]]:
        """What `submit` takes, by its kind."""
        return {name: kind.model for name, kind in self._kinds.items()}

    def spec(self, key: str) -> dict[str, Any]:
        """For the service itself; holds credentials."""
        return self._store.spec(key)

    def _current(self, job: JobStatus) -> JobStatus:
        live = self._live.get(job.key)
        if live is None or job.state is not JobState.RUNNING:
            return job
        return job.model_copy(update={"step": live.step, "progress": live.progress})

    def _work(self) -> None:
        while (key := self._queue.get()) is not None:
            try:
                begun = self._begin(key)
            except Exception:
                # It is queued in the store as before: tried again here, or at the next start of the service.
                log.exception("job %s cannot be started", key)
                if not self._stopping.wait(STORE_PAUSE_SECONDS):
                    self._queue.put(key)
                continue
            if begun is None:
                continue
            job, live = begun
            try:
                self._settle(job.key, live, self._run(job, live))
            finally:
                with self._lock:
                    # A resubmission may have put a new attempt here already.
                    if self._live.get(key) is live:
                        del self._live[key]
                live.done.set()

    def _begin(self, key: str) -> tuple[JobStatus, Live] | None:
        with self._lock:
            job = self._store.find(key)
            # Cancelled while it waited, forgotten, or queued twice.
            if job is None or job.state is not JobState.QUEUED or self._stopping.is_set():
                return None
            if self._store.cancel_requested(key):
                # The store took the wish and then failed.
                self._store.transition(key, JobState.CANCELLED)
                return None
            live = Live(spec=self._store.spec(key))
            job = self._store.transition(key, JobState.RUNNING)
            self._live[key] = live
            return job, live

    def _run(self, job: JobStatus, live: Live) -> dict[str, Any] | JobError | None:
        """The job's result, what it failed with, or None when it was told to end."""
        with lines_of_job(job.key, live.spec.get("migration"), live.spec.get("generation")):
            return self._attempt(job, live)

    def _attempt(self, job: JobStatus, live: Live) -> dict[str, Any] | JobError | None:
        try:
            kind = self._kinds[job.kind]
            context: JobContext[Any] = JobContext(job.key, job.attempt, kind.model, live, self._store, self.moved)
            result = dict(kind.run(context))
            json.dumps(result)
            return result
        except Cancelled:
            return None
        except Exception as error:
            code, message, remedy = explain(error)
            if live.stop.is_set():
                # Told to end while it waited for something, which then failed: that is the end it was told.
                log.info("job %s ended on demand: %s", job.key, message)
                return None
            if code == "internal":
                log.exception("job %s failed", job.key)
            else:
                log.warning("job %s failed: %s: %s", job.key, code, message)
            return JobError(code=code, message=message, remedy=remedy)

    def _settle(self, key: str, live: Live, outcome: dict[str, Any] | JobError | None) -> None:
        """Store how a job ended, again and again while the store refuses (a full disk): what is lost would stay
        `running` for ever. When the service ends first, its next start queues the job again."""
        while True:
            try:
                return self._store_outcome(key, live, outcome)
            except (Conflict, NotFound) as error:
                log.error("job %s ended, but its record is another: %s", key, error)
                return None
            except Exception:
                log.exception("the end of job %s cannot be stored", key)
            if self._stopping.wait(STORE_PAUSE_SECONDS):
                return None

    def _store_outcome(self, key: str, live: Live, outcome: dict[str, Any] | JobError | None) -> None:
        if outcome is None:
            cancelled = self._store.cancel_requested(key)
            self._store.transition(key, JobState.CANCELLED if cancelled else JobState.QUEUED)
            return
        self._store.report(key, live.step, live.progress)
        if isinstance(outcome, JobError):
            self._store.transition(key, JobState.FAILED, error=outcome)
        else:
            self._store.transition(key, JobState.SUCCEEDED, result=outcome)


def _first(error: ValidationError) -> str:
    # Only place and reason: the input itself may be a credential.
    detail = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}"
