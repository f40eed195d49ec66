"""One budget of memory for all copies of a process: what would exceed it waits, and one always goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

# An agent without any takes some 65 MiB, and is to stay under 96 in a full copy.
DEFAULT_BYTES = 24 << 20
LOOK_EVERY_SECONDS = 0.1


class MemoryBudget:
    """Buffers are lent for a pack at a time. Who waits for one holds none, so there is no deadlock; and when none is
    lent the next request is met whatever its size and whatever is reserved, so somebody always goes on."""

    def __init__(self, total: int = DEFAULT_BYTES) -> None:
        """`total` in bytes."""
        self.total = total
        self._changed = threading.Condition()
        self._lent = 0
        self._lent_bytes = 0
        self._reserved = 0
        # Fresh memory is slow, so what comes back is lent again.
        self._free: list[bytearray] = []

    @property
    def used(self) -> int:
        """Bytes lent and reserved."""
        with self._changed:
            return self._lent_bytes + self._reserved

    def borrow(self, size: int, stop: Callable[[], bool]) -> bytearray | None:
        """A buffer of `size` bytes, of any content, to be handed back; None when `stop` says so while it waits."""
        with self._changed:
            while self._lent and self._lent_bytes + self._reserved + size > self.total:
                if stop():
                    return None
                self._changed.wait(LOOK_EVERY_SECONDS)
            self._lent += 1
            self._lent_bytes += size
            for index, buffer in enumerate(self._free):
                if len(buffer) == size:
                    return self._free.pop(index)
            self._trim()
            return bytearray(size)

    def hand_back(self, buffer: bytearray) -> None:
        with self._changed:
            self._lent -= 1
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
