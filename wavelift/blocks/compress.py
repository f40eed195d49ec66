"""When compression pays: it must shrink the record, and the link must be slower than the compressor."""

from __future__ import annotations

import threading
import time
from enum import StrEnum

import zstandard

LEVEL = 1
PROBE = 16 * 1024
WORTHWHILE = 0.9
# Above this, in bytes a second, zstd on two cores costs more time than the link saves.
FAST_LINK = 200e6
WARM_UP_BYTES = 16 << 20


class Compression(StrEnum):
    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class LinkGauge:
    """Shared by the workers: is the copy waiting for the link, and is the link slow?"""

    def __init__(self, workers: int) -> None:
        self._lock = threading.Lock()
        self._workers = workers
        self._since = time.monotonic()
        self._bytes = 0
        self._busy = 0.0
        self._slow = False

    def sent(self, size: int, seconds: float) -> None:
        with self._lock:
            self._bytes += size
            self._busy += seconds
            elapsed = time.monotonic() - self._since
            if self._bytes < WARM_UP_BYTES and elapsed < 2:
                return
            waiting = self._busy / (elapsed * self._workers)
            self._slow = waiting > (0.3 if self._slow else 0.6) and self._bytes / elapsed < FAST_LINK
            self._since, self._bytes, self._busy = time.monotonic(), 0, 0.0

    @property
    def slow(self) -> bool:
        return self._slow


class Compressor:
    """One per worker. Callable: the compressed bytes, or None where it does not pay."""

    def __init__(self, mode: Compression, gauge: LinkGauge) -> None:
        self._mode = mode
        self._gauge = gauge
        self._zstd = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True, write_checksum=False)

    def __call__(self, data: memoryview) -> bytes | None:
        if self._mode is Compression.NEVER or (self._mode is Compression.AUTO and not self._gauge.slow):
            return None
        middle = len(data) // 2
        probe = data[middle : middle + PROBE]
        if len(self._zstd.compress(probe)) > len(probe) * WORTHWHILE:
            return None
        packed = self._zstd.compress(data)
        return packed if len(packed) < len(data) * WORTHWHILE else None
