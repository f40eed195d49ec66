"""A limit on what is sent, wherever it goes."""

from __future__ import annotations

from collections.abc import Callable

from wavelift.blocks.sink import Receipt, Sink
from wavelift.blocks.throttle import Throttle


class PacedSink:
    """Packs that leave when the limit lets them."""

    def __init__(self, sink: Sink, throttle: Throttle, stopped: Callable[[], bool]) -> None:
        self._sink = sink
        self._throttle = throttle
        self._stopped = stopped

    @property
    def takes_copies(self) -> bool:
        return self._sink.takes_copies

    def put(self, sequence: int, pack: memoryview) -> Receipt:
        """Raises as the sink does, and `Stopped`."""
        left = len(pack)
        while left:
            count = min(left, self._throttle.chunk() or left)
            self._throttle.take("copy", count, self._stopped)
            left -= count
        return self._sink.put(sequence, pack)

    def close(self) -> None:
        self._sink.close()
