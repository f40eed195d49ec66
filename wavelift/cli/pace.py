"""A limit on what is written where nothing is sent: on this machine."""

from __future__ import annotations

from dataclasses import replace

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
        left, before = len(pack), self._flow.held_seconds
        while left:
            left -= self._flow.take(left)
        receipt = self._sink.put(sequence, pack)
        return replace(receipt, link_seconds=receipt.link_seconds + self._flow.held_seconds - before)

    def close(self) -> None:
        self._sink.close()
