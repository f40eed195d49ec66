"""One budget of memory for all copies of a process: what would exceed it waits, and each of them always goes on."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable

# An agent without any takes some 65 MiB, and is to stay under 96 in a full copy.
DEFAULT_BYTES = 20 << 20
LOOK_EVERY_SECONDS = 0.1


class MemoryBudget:
    """Buffers are lent for a pack at a time. Who waits for one holds none, so there is no deadlock; and a copy to
    which none is lent gets one whatever its size and whatever others hold, so that one whose packs take long, or never
    leave, stops no other. What is lent can therefore exceed the budget, by one pack for each copy."""

    def __init__(self, total: int = DEFAULT_BYTES) -> None:
        """`total` in bytes."""
        self.total = total
        self._changed = threading.Condition()
        self._lent: Counter[Hashable] = Counter()
        self._lent_bytes = 0
        self._reserved = 0
        # Fresh memory is slow, so what comes back is lent again.
        self._free: list[bytearray] = []

    @property
    def used(self) -> int:
        """Bytes lent and reserved."""
        with self._changed:
            return self._lent_bytes + self._reserved

    def borrow(self, size: int, stop: Callable[[], bool], copy: Hashable) -> bytearray | None:
        """A buffer of `size` bytes, of any content, for `copy` to hand back; None when `stop` says so meanwhile."""
        with self._changed:
            while self._lent[copy] and self._lent_bytes + self._reserved + size > self.total:
                if stop():
                    return None
                self._changed.wait(LOOK_EVERY_SECONDS)
            self._lent[copy] += 1
            self._lent_bytes += size
            for index, buffer in enumerate(self._free):
                if len(buffer) == size:
                    return self._free.pop(index)
            self._trim()
            return bytearray(size)

    def hand_back(self, buffer: bytearray, copy: Hashable) -> None:
        with self._changed:
            self._lent[copy] -= 1
            if not self._lent[copy]:
                del self._lent[copy]
            self._lent_bytes -= len(buffer)
            self._free.append(buffer)
            self._trim()
            self._changed.notify_all()

    def reserve(self, size: int) -> bool:
        """Take `size` bytes for something one can do without; False when they are not there. Give them back."""
        with self._changed:
            if self._lent_bytes + self._reserved + size > self.total:
                return False
            self._reserved += size
            self._trim()
            return True

    def give_back(self, size: int) -> None:
        with self._changed:
            self._reserved -= size
            self._changed.notify_all()

    def _trim(self) -> None:
        """Free memory counts too: of what is not lent no more stays than the budget has room for."""
        room = self.total - self._lent_bytes - self._reserved
        while self._free and sum(map(len, self._free)) > max(room, 0):
            self._free.pop(0)


# What this process may take; an agent's jobs and their disks share it.
SHARED = MemoryBudget()
