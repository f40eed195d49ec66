"""When compression pays: it must shrink the record, and save more time on the link than it takes."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import ClassVar

import zstandard

FAST_LEVEL = 1
MAX_LEVEL = 19
WORTHWHILE = 0.9
# Content changes its kind between files, seldom within a few MiB; no larger than what one worker has in hand.
STRETCH = 8 << 20
PROBE_PIECE = 4 * 1024
# After so many bytes of a stretch that did not shrink, the next so many are not tried.
PATIENCE = 1 << 20
PAUSE = 3 << 20

# Of a byte that is compressed where it pays, this much need not be sent.
SAVED = 0.35
# Seconds to compress a byte at the fast level on a busy machine, until it was measured.
FIRST_COST = 1 / 250e6
WINDOW_BYTES = 4 << 20
WINDOW_SECONDS = 2.0


@dataclass(frozen=True)
class Compression:
    """zstd at `level`, None for none at all; `adaptive`: only while the link is slower than the compressor."""

    AUTO: ClassVar[Compression]
    NEVER: ClassVar[Compression]

    level: int | None
    adaptive: bool = False

    def __post_init__(self) -> None:
        if self.level is not None and not 1 <= self.level <= MAX_LEVEL:
            raise ValueError(f"zstd level {self.level} is not from 1 to {MAX_LEVEL}")


Compression.AUTO = Compression(FAST_LEVEL, adaptive=True)
Compression.NEVER = Compression(None)


class LinkGauge:
    """Shared by the workers: would fewer bytes on the link save more time than compressing takes?

    Until it knows, it says yes: a few records compressed in vain cost little, the first packs on a narrow link much.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = time.monotonic()
        self._bytes = 0
        self._link = 0.0
        self._cost = FIRST_COST
        self._slow = True

    def sent(self, size: int, seconds: float) -> None:
        """`seconds` on the way, throttles included; what the receiver needs for itself is not of the link."""
        with self._lock:
            self._bytes += size
            self._link += seconds
            if self._bytes < WINDOW_BYTES and time.monotonic() - self._since < WINDOW_SECONDS:
                return
            saved = self._link / self._bytes * SAVED
            self._slow = saved > (self._cost * 0.7 if self._slow else self._cost)
            self._since, self._bytes, self._link = time.monotonic(), 0, 0.0

    def compressed(self, size: int, seconds: float) -> None:
        with self._lock:
            self._cost += (seconds / size - self._cost) / 16

    @property
    def slow(self) -> bool:
        return self._slow


class Compressor:
    """One per worker. Callable: the compressed bytes, or None where it does not pay."""

    def __init__(self, mode: Compression, gauge: LinkGauge) -> None:
        self._mode = mode
        self._gauge = gauge
        level = mode.level or FAST_LEVEL
        self._zstd = zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False)
        self._stretch: tuple[int, int] | None = None
        self._missed = 0
        self._again = 0

    def __call__(self, data: memoryview, disk: int, offset: int) -> bytes | None:
        """`disk` and `offset` say where the data is from: what was found there is remembered for a stretch."""
        if self._mode.level is None or (self._mode.adaptive and not self._gauge.slow):
            return None
        if (disk, offset // STRETCH) != self._stretch:
            self._stretch, self._missed, self._again = (disk, offset // STRETCH), 0, offset
        if offset < self._again:
            return None
        packed = self._compress(data)
        self._missed = 0 if packed is not None else self._missed + len(data)
        if self._missed >= PATIENCE:
            self._again = offset + len(data) + PAUSE
        return packed

    def _compress(self, data: memoryview) -> bytes | None:
        if len(data) > 4 * PROBE_PIECE:
            places = (0, len(data) // 2, len(data) - PROBE_PIECE)
            probe = b"".join(data[at : at + PROBE_PIECE] for at in places)
            if len(self._zstd.compress(probe)) > len(probe) * WORTHWHILE:
                return None
        began = time.monotonic()
        packed = self._zstd.compress(data)
        self._gauge.compressed(len(data), time.monotonic() - began)
        return packed if len(packed) < len(data) * WORTHWHILE else None
