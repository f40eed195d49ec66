"""The copy pipeline: one thread walks the extents, workers own everything from the read to the receipt."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

from wavelift.blocks.copy_job import Ack, CopyDisk, CopySettings, Job
from wavelift.blocks.copy_worker import Worker, changed_runs
from wavelift.blocks.plan import Range

__all__ = ["Ack", "CopyDisk", "CopySettings", "changed_runs", "copy_disks"]

CHECK_EVERY_SECONDS = 0.05


def copy_disks(
    settings: CopySettings,
    disks: list[CopyDisk],
    acknowledge: Callable[[Ack], None],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Copy all ranges of all disks; `acknowledge` is called from several threads, after durability.

    `check` may raise to stop: packs under way are delivered first, so nothing is written after the return.
    Raises the first error of any worker.
    """
    job = Job(settings, disks, acknowledge)
    check = _seldom(check)
    threads = [
        threading.Thread(target=_work, args=(job,), name=f"copy-{number}", daemon=True)
        for number in range(settings.workers)
    ]
    for thread in threads:
        thread.start()
    try:
        for item in _items(disks):
            # What is left may take hours to walk.
            if job.failed.is_set():
                break
            _offer(job, item, check)
        for _ in threads:
            _offer(job, None, check)
        while any(thread.is_alive() for thread in threads):
            check()
            for thread in threads:
                thread.join(0.05)
    except BaseException as error:
        job.fail(error)
        raise
    finally:
        for thread in threads:
            thread.join()
        job.elsewhere.close()
    if job.errors:
        raise job.errors[0]


def _items(disks: list[CopyDisk]) -> Iterator[tuple[int, Range]]:
    for index, disk in enumerate(disks):
        for item in disk.work:
            yield index, item


def _seldom(check: Callable[[], None]) -> Callable[[], None]:
    """The same, a few times a second: there may be a hundred thousand ranges, and a check may cost as much as one."""
    last = 0.0

    def seldom() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= CHECK_EVERY_SECONDS:
            check()
            last = now

    return seldom


def _offer(job: Job, item: tuple[int, Range] | None, check: Callable[[], None]) -> None:
    while not job.failed.is_set():
        check()
        try:
            job.queue.put(item, timeout=0.1)
        except queue.Full:
            continue
        return


def _work(job: Job) -> None:
    worker = Worker(job)
    try:
        while not job.failed.is_set():
            try:
                item = job.queue.get(timeout=0.1)
            except queue.Empty:
                continue
            if item is None:
                worker.flush()
                return
            worker.take(*item)
    except BaseException as error:  # noqa: BLE001  handed to the caller of copy_disks, which raises it
        job.fail(error)
    finally:
        worker.close()
