"""What the agent tells Prometheus beside what every service does: how far each migration is, and its packs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from wavelift.agent.state import MigrationState
from wavelift.blocks.limits import Limits
from wavelift.blocks.meter import WireMeter
from wavelift.service.metrics import counter, gauge


def figures(state: Path, wire: WireMeter, limits: Limits) -> Iterator[Metric]:
    generations = GaugeMetricFamily(
        "wavelift_committed_generation", "The last generation verified at the target", labels=["migration"]
    )
    times = GaugeMetricFamily(
        "wavelift_committed_timestamp_seconds",
        "When that generation was committed; time() less this is how old the replica is at least",
        labels=["migration"],
    )
    for folder in sorted((state / "migrations").glob("*")):
        found = MigrationState(state, folder.name)
        committed = found.committed()
        if committed is not None:
            generations.add_metric([folder.name], committed.generation)
            times.add_metric([folder.name], found.committed_at())
    yield generations
    yield times
    yield counter("wavelift_packs", "Packs acknowledged since the start", wire.packs)
    yield gauge("wavelift_connections", "Open connections to gateways", wire.connections)
    yield counter("wavelift_wire_retries", "Packs tried again since the start", wire.retries)
    errors = CounterMetricFamily("wavelift_wire_errors", "Failed tries to deliver a pack, by code", labels=["code"])
    for code, count in wire.errors().items():
        errors.add_metric([code], count)
    yield errors
    waited = limits.all.waited_seconds
    yield counter("wavelift_throttle_wait_seconds", "How long senders waited for the agent's limit", waited)
