"""Threads that work off a row of things, fetching slowly and writing quickly; those who wait for a store hold up no
one who wants it to end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
LOOK_SECONDS = 0.05


class Over(Exception):
    """In a worker: nothing more is to be done."""


class Crew:
    def __init__(self, count: int, check: Callable[[], None]) -> None:
        """`check` is called a few times a second, by the thread that calls `each`, and may raise."""
        self._count = count
        self._check = check
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self._writing = 0
        self._over = False
        self._errors: list[BaseException] = []

    def over(self) -> bool:
        return self._over

    def require(self) -> None:
        """Raises `Over`."""
        if self._over:
            raise Over

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What `each` waits for, even where it ends early. Raises `Over`."""
        with self._changed:
            self.require()
            self._writing += 1
        try:
            yield
        finally:
            with self._changed:
                self._writing -= 1
                self._changed.notify_all()

    def each(self, items: Iterator[T], worker: Callable[[], Callable[[T], None]]) -> None:
        """Give every item to one of the workers, which are made in their threads. Raises the first error of any, or
        what `check` raised; then workers may be waiting for a store still, but none writes, now or later."""
        threads = [
            threading.Thread(target=self._work, args=(items, worker), name=f"crew-{number}", daemon=True)
            for number in range(self._count)
        ]
        for thread in threads:
            thread.start()
        try:
            while not self._errors and any(thread.is_alive() for thread in threads):
                self._check()
                for thread in threads:
                    thread.join(LOOK_SECONDS)
            if self._errors:
                raise self._errors[0]
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        with self._changed:
            self._over = True
            self._changed.wait_for(lambda: not self._writing)

    def _work(self, items: Iterator[T], worker: Callable[[], Callable[[T], None]]) -> None:
        try:
            handle = worker()
            while not self._over:
                with self._turn:
                    item = next(items, None)
                if item is None:
                    return
                handle(item)
        except BaseException as error:  # noqa: BLE001  handed to the caller of `each`, which raises it
            if not self._over:
                self._errors.append(error)


def asked(call: Callable[[], T], check: Callable[[], None]) -> T:
    """What the call returns, which may wait for a store for minutes; `check` may raise meanwhile, and then the caller
    waits no longer."""
    found: list[T] = []
    Crew(1, check).each(iter([call]), lambda: lambda call: found.append(call()))
    return found[0]
