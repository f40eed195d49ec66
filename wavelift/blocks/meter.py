"""What became of the packs that this process sent; read by whoever watches it."""

from __future__ import annotations

import threading
from collections import Counter


class WireMeter:
    """Counts since it was made; shared by all sinks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: Counter[str] = Counter()
        self.packs = 0
        self.retries = 0
        self.connections = 0

    def delivered(self) -> None:
        with self._lock:
            self.packs += 1

    def failed(self, code: str) -> None:
        with self._lock:
            self._errors[code] += 1

    def again(self) -> None:
        with self._lock:
            self.retries += 1

    def connected(self, change: int) -> None:
        """One connection more (1) or less (-1)."""
        with self._lock:
            self.connections += change

    def errors(self) -> dict[str, int]:
        """How many tries failed, by the error's code."""
        with self._lock:
            return dict(self._errors)
