"""A limit on what goes to where packs lie at rest: on this machine, or in a store."""

from __future__ import annotations

from dataclasses import replace

from wavelift.blocks.errors import BlockError
from wavelift.blocks.meter import WireMeter
from wavelift.blocks.sink import Receipt, Sink
from wavelift.blocks.throttle import Flow


class PacedSink:
    """Packs that are written when the limit lets them; `meter` counts what becomes of them."""

    def __init__(self, sink: Sink, flow: Flow, meter: WireMeter | None = None) -> None:
        self._sink = sink
        self._flow = flow
        self._meter = meter or WireMeter()
        self.takes_copies = sink.takes_copies

    def put(self, sequence: int, pack: memoryview) -> Receipt:
        """Raises as the sink does, and `Stopped`."""
        left, before = len(pack), self._flow.held_seconds
        while left:
            left -= self._flow.take(left)
        try:
            receipt = self._sink.put(sequence, pack)
        except BlockError as error:
            self._meter.failed(error.code)
            raise
        self._meter.delivered()
        return replace(receipt, link_seconds=receipt.link_seconds + self._flow.held_seconds - before)

    @property
    def paused(self) -> bool:
        return self._flow.now().limit == 0

    def close(self) -> None:
        self._sink.close()
