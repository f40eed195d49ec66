"""Locks by name, for what takes longer than a transaction: one disk, one machine, one client token."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager


class LockOrder(Exception):
    def __init__(self, name: str, held: list[str]) -> None:
        super().__init__(f"{name!r} is asked for while {held} are held: two threads could wait for each other")


class KeyedLocks:
    """Hold names in sorted order, and never ask for one inside a store transaction: then nothing can deadlock."""

    def __init__(self) -> None:
        self._mine = threading.local()
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.RLock, int]] = {}

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        held: list[str] = self._mine.__dict__.setdefault("held", [])
        if name not in held and any(name < other for other in held):
            raise LockOrder(name, held)
        with self._guard:
            lock, users = self._locks.get(name, (threading.RLock(), 0))
            self._locks[name] = (lock, users + 1)
        try:
            with lock:
                held.append(name)
                try:
                    yield
                finally:
                    held.remove(name)
        finally:
            with self._guard:
                lock, users = self._locks[name]
                if users == 1:
                    del self._locks[name]
                else:
                    self._locks[name] = (lock, users - 1)

    @contextmanager
    def hold_all(self, names: Iterable[str]) -> Iterator[None]:
        with ExitStack() as stack:
            for name in sorted(set(names)):
                stack.enter_context(self.hold(name))
            yield
