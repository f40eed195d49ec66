"""Moves that take time.

A request puts an entity into a passing state; the engine does the work of that state outside any transaction, waits
until the passage is due, and ends it. What is under way is in the store, so a restart goes on where it was: every
piece of work may be done twice.
"""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from wavelift.localcloud.entities import Busy, Moving
from wavelift.localcloud.states import PASSAGES, Profile, Status, check_move
from wavelift.localcloud.store import Store, Transaction

LOG = logging.getLogger(__name__)

# After this long an end that could not be written down (a full disk) is tried again.
RETRY_SECONDS = 1.0

Work = Callable[[str], None]
Finish = Callable[[Transaction, Moving, bool], None]


class Interrupted(Exception):
    """The cloud stops: the work ends here, and begins again with the next start."""


@dataclass(frozen=True)
class Task:
    """The work of one passing state, and what else changes when it ends (told whether the work failed)."""

    kind: type[Moving]
    work: Work | None = None
    finish: Finish | None = None


class Engine:
    def __init__(self, store: Store, profile: Profile) -> None:
        self._store = store
        self._profile = profile
        self._tasks: dict[Status, Task] = {}
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="localcloud-work")
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._wake = threading.Condition()
        self._stopping = False
        self._held = False
        # Asked before the work of a passing state; what it raises fails the passage.
        self.obstacle: Callable[[Status, str], None] | None = None
        self._clock = threading.Thread(target=self._run_clock, name="localcloud-clock", daemon=True)

    def register(self, status: Status, task: Task) -> None:
        self._tasks[status] = task

    def start(self) -> None:
        """Take up what was under way when the cloud stopped."""
        self._clock.start()
        with self._store.transaction() as tx:
            for kind in {task.kind for task in self._tasks.values()}:
                for entity in tx.all(kind):
                    if entity.busy is not None:
                        self._dispatch_after(tx, entity)

    def stop(self) -> None:
        """Ends no passage: what is under way goes on when the cloud starts again."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._clock.is_alive():
            self._clock.join()
        self._pool.shutdown(wait=True, cancel_futures=True)

    @contextmanager
    def hold_clock(self) -> Iterator[None]:
        """No passage ends meanwhile: what an observer sees does not depend on how fast it looks."""
        with self._wake:
            self._held = True
        try:
            yield
        finally:
            with self._wake:
                self._held = False
                self._wake.notify_all()

    def request(self, tx: Transaction, entity: Moving, status: Status) -> None:
        """Begin a move that somebody asked for; the table says which are legal."""
        check_move(entity.status, status)
        self.enter(tx, entity, status)

    def enter(self, tx: Transaction, entity: Moving, status: Status) -> None:
        """Be in a passing state from now on (also the first state of something new)."""
        now = time.time()
        entity.become(status)
        entity.busy = Busy(started=now, due=now + PASSAGES[status].seconds(self._profile))
        tx.put(entity)
        self._dispatch_after(tx, entity)

    def _dispatch_after(self, tx: Transaction, entity: Moving) -> None:
        assert entity.busy is not None
        identifier, status, busy = entity.id, entity.status, entity.busy
        tx.after_commit.append(lambda: self._dispatch(identifier, status, busy))

    def _dispatch(self, identifier: str, status: Status, busy: Busy) -> None:
        with self._wake:
            if not self._stopping:
                self._pool.submit(self._run, identifier, status, busy)

    def _run(self, identifier: str, status: Status, busy: Busy) -> None:
        task = self._tasks[status]
        failed = False
        try:
            if self.obstacle is not None:
                self.obstacle(status, identifier)
            if task.work is not None:
                task.work(identifier)
        except Interrupted:
            return
        except Exception:
            LOG.exception("%s %s: the work of state %s failed", task.kind.kind, identifier, status.value)
            failed = True
        with self._wake:
            if self._stopping:
                return
            self._end_at(busy.due, lambda: self._end(identifier, status, busy, failed))

    def _end_at(self, due: float, end: Callable[[], None]) -> None:
        with self._wake:
            heapq.heappush(self._due, (due, next(self._order), end))
            self._wake.notify_all()

    def _end(self, identifier: str, status: Status, busy: Busy, failed: bool) -> None:
        task = self._tasks[status]
        passage = PASSAGES[status]
        with self._store.transaction() as tx:
            entity = tx.get(task.kind, identifier)
            if entity is None or entity.status is not status or entity.busy != busy:
                return
            after = passage.failed if failed else passage.end
            entity.busy = None
            if after is None:
                tx.remove(entity)
                tx.forget(entity.id)
            else:
                entity.become(after)
                tx.put(entity)
            if task.finish is not None:
                task.finish(tx, entity, failed)
            # `finish` may have changed it, chosen another end, or begun something itself.
            now = tx.get(task.kind, identifier)
            if now is not None and now.busy is None and now.status in PASSAGES:
                self.enter(tx, now, now.status)

    def _run_clock(self) -> None:
        while True:
            with self._wake:
                if self._stopping:
                    return
                if self._held or not self._due:
                    self._wake.wait()
                    continue
                wait = self._due[0][0] - time.time()
                if wait > 0:
                    self._wake.wait(wait)
                    continue
                _, _, end = heapq.heappop(self._due)
            try:
                end()
            except Exception:
                LOG.exception("a state could not be ended; tried again in %g s", RETRY_SECONDS)
                self._end_at(time.time() + RETRY_SECONDS, end)
