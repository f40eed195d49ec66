"""What the gateway tells Prometheus beside what every service does: the packs it took."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric

from wavelift.blocks.limits import Limits
from wavelift.gateway.data import DataServer
from wavelift.service.metrics import counter, gauge


def figures(data: DataServer, limits: Limits) -> Iterator[Metric]:
    taken = data.taken
    yield counter("wavelift_packs", "Packs made durable since the start", taken.packs)
    received = CounterMetricFamily(
        "wavelift_pack_bytes", "Bytes of those packs: on the wire, and of the volumes they wrote", labels=["what"]
    )
    received.add_metric(["wire"], taken.wire_bytes)
    received.add_metric(["written"], taken.bytes)
    yield received
    refused = CounterMetricFamily("wavelift_packs_refused", "Packs not taken since the start, by code", labels=["code"])
    for code, count in taken.refused().items():
        refused.add_metric([code], count)
    yield refused
    waited = limits.all.waited_seconds
    yield counter("wavelift_throttle_wait_seconds", "How long packs waited for the gateway's limit", waited)
    yield gauge("wavelift_connections", "Open connections of senders", data.connections)
