"""Tasks: images on their way in and out, a few at a time, the others waiting; and the record of what was done."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from wavelift.localcloud.engine import Task
from wavelift.localcloud.entities import Job, Moving, new_id
from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.model.context import Context, find
from wavelift.localcloud.model.conversion import ConversionFailed, Converter
from wavelift.localcloud.model.formats import Unfit
from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.states import TaskStatus
from wavelift.localcloud.store import Transaction

# Each takes a worker of the engine for as long as it lasts.
AT_ONCE = 2
UNDER_WAY = {TaskStatus.PENDING, TaskStatus.PROCESSING}
_OSS = {"NoSuchBucket": "InvalidOSSBucket.NotFound", "NoSuchKey": "InvalidOSSObject.NotFound"}


class Cancelled(Exception):
    """Somebody cancelled the task while it was worked on."""


class Kind(Protocol):
    """What one action does for its task."""

    def began(self, tx: Transaction, job: Job) -> None: ...

    def work(self, job: Job, check: Callable[[], None]) -> None:
        """Outside any transaction; `check` raises when there is no use in going on. May be done twice."""

    def ended(self, tx: Transaction, job: Job, failed: bool) -> None: ...


class Tasks:
    def __init__(self, context: Context, converter: Converter) -> None:
        self._context = context
        self._converter = converter
        self._kinds: Mapping[str, Kind] = {}
        self._cancelled: set[str] = set()
        context.engine.register(TaskStatus.PROCESSING, Task(Job, self._work, self._finish))

    def serve(self, kinds: Mapping[str, Kind]) -> None:
        self._kinds = kinds

    def add(self, tx: Transaction, job: Job) -> None:
        tx.put(job)
        self._begin_waiting(tx)

    def _begin_waiting(self, tx: Transaction) -> None:
        """The oldest first."""
        jobs = tx.look(Job)
        free = AT_ONCE - sum(job.status is TaskStatus.PROCESSING for job in jobs)
        for waiting in [job for job in jobs if job.status is TaskStatus.PENDING][: max(0, free)]:
            job = find(tx, Job, waiting.id)
            self._kinds[job.action].began(tx, job)
            self._context.engine.enter(tx, job, TaskStatus.PROCESSING)

    def _work(self, identifier: str) -> None:
        with self._context.store.transaction() as tx:
            job = find(tx, Job, identifier)

        def check() -> None:
            self._converter.check()
            if identifier in self._cancelled:
                raise Cancelled

        try:
            check()
            self._kinds[job.action].work(job, check)
        except Cancelled:
            return
        except (Unfit, OssError, ConversionFailed, OSError) as error:
            if identifier in self._cancelled:  # the end of its qemu-img is what failed
                return
            self._note(identifier, *_reason(job, error))
            raise

    def _note(self, identifier: str, code: str, message: str) -> None:
        with self._context.store.transaction() as tx:
            job = find(tx, Job, identifier)
            job.error, job.message = code, message
            tx.put(job)

    def _finish(self, tx: Transaction, entity: Moving, failed: bool) -> None:
        job = find(tx, Job, entity.id)
        job.finished = time.time()
        if failed and not job.error:
            job.error, job.message = "InternalError", "The task failed."
        self._kinds[job.action].ended(tx, job, failed)
        tx.put(job)
        self._begin_waiting(tx)

    def cancel(self, identifier: str) -> None:
        with self._context.store.transaction() as tx:
            job = _find(tx, identifier)
            if job.action not in self._kinds:
                raise ApiError("InvalidTaskId.TaskActionNotSupport", "The specified task action not support.")
            if job.status not in UNDER_WAY:
                raise ApiError("InvalidTaskId.IncorrectTaskStatus", f"The task is {job.status.value}.")
            # The work hears of it before its files are removed: then it leaves none behind.
            tx.after_commit.append(lambda: self._end_work(identifier))
            job.become(TaskStatus.CANCELLED)
            job.busy, job.finished = None, time.time()
            self._kinds[job.action].ended(tx, job, True)
            tx.put(job)
            self._begin_waiting(tx)

    def _end_work(self, identifier: str) -> None:
        self._cancelled.add(identifier)
        self._converter.cancel(identifier)

    def get(self, identifier: str) -> Job:
        with self._context.store.transaction() as tx:
            return _find(tx, identifier)

    def all(self) -> Sequence[Job]:
        with self._context.store.transaction() as tx:
            return tx.look(Job)


def _reason(job: Job, error: Exception) -> tuple[str, str]:
    if isinstance(error, Unfit):
        return error.code, error.message
    if isinstance(error, OssError):
        return _OSS.get(error.code, error.code), error.message
    return f"{job.action}Failed", str(error)


def cancellable(job: Job) -> bool:
    return job.status in UNDER_WAY


def done_at_once(tx: Transaction, action: str, resource: str) -> str:
    """The record of a task that took no time."""
    now = time.time()
    record = {"id": new_id(Job.prefix), "created": now, "finished": now, "action": action, "resource": resource}
    job = Job.model_validate({**record, "status": TaskStatus.FINISHED})
    tx.put(job)
    return job.id


def _find(tx: Transaction, identifier: str) -> Job:
    job = tx.get(Job, identifier)
    if job is None:
        raise ApiError("InvalidTaskId.NotFound", 'The specified "TaskId" is not found.')
    return job
