"""A limit on what is written where nothing is sent: on this machine."""

from __future__ import annotations

from wavelift.blocks.sink import Receipt, Sink
from wavelift.blocks.throttle import Flow


class PacedSink:
    """Packs that are written when the limit lets them."""

    def __init__(self, sink: Sink, flow: Flow) -> None:
        self._sink = sink
        self._flow = flow
        self.takes_copies = sink.takes_copies

    def put(self, sequence: int, pack: memoryview) -> Receipt:
        """Raises as the sink does, and `Stopped`."""
        left = len(pack)
        while left:
            left -= self._flow.take(left)
        return self._sink.put(sequence, pack)

    def close(self) -> None:
        self._sink.close()
