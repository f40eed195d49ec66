"""What a service tells Prometheus. Read from where it is known at the time of the scrape: nothing is counted twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from fastapi import Depends, FastAPI, Response
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import wavelift
from wavelift.service.jobs import JobState
from wavelift.service.runner import JobRunner

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Source = Callable[[], Iterable[Metric]]


class _Reader(Collector):
    def __init__(self, source: Source) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        yield from self._source()

    def describe(self) -> list[Metric]:
        # Without this the registry would collect once to learn the names.
        return []


def add_metrics(app: FastAPI, guard: Callable[..., object], service: str, runner: JobRunner, more: Source) -> None:
    """Serve `GET /metrics` to whoever `guard` lets in: jobs, bytes, the process, and what the service adds."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for source in (lambda: _about(service), lambda: _jobs(runner), more):
        registry.register(_Reader(source))

    @app.get(
        "/metrics",
        summary="Figures for Prometheus",
        dependencies=[Depends(guard)],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=_CONTENT_TYPE)


def counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)


def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _about(service: str) -> Iterator[Metric]:
    about = GaugeMetricFamily("wavelift_build_info", "Which service of which version", labels=["service", "version"])
    about.add_metric([service, wavelift.__version__], 1)
    yield about


def _jobs(runner: JobRunner) -> Iterator[Metric]:
    jobs = runner.all()
    states = GaugeMetricFamily("wavelift_jobs", "Jobs that are kept, by kind and state", labels=["kind", "state"])
    found = Counter((job.kind, job.state) for job in jobs)
    for kind in sorted(runner.models()):
        for state in JobState:
            states.add_metric([kind, state], found[kind, state])
    yield states
    retries = sum(job.attempt - 1 for job in jobs)
    yield gauge("wavelift_job_retries", "Attempts beyond the first of the jobs that are kept", retries)
    moved = CounterMetricFamily(
        "wavelift_bytes",
        "Bytes since the start: read from sources, of packs on the wire, durable at the target, verified there",
        labels=["what"],
    )
    for what, count in runner.moved.totals().items():
        moved.add_metric([what], count)
    yield moved
