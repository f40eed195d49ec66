"""Jobs of a migration whose disks lie on several gateways: a part on each, and one status of them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from wavelift.blocks.blockmap import generation_root
from wavelift.service.client import ServiceClient
from wavelift.service.jobs import JobState, JobStatus, Progress

_WORST_FIRST = (JobState.FAILED, JobState.CANCELLED, JobState.RUNNING, JobState.QUEUED, JobState.SUCCEEDED)
_SUMMED = (*(name for name in Progress.model_fields if name.endswith("_bytes")), "bytes_per_second")


class JobService(Protocol):
    """What runs jobs: an agent, a gateway, or several gateways."""

    def submit(self, key: str, spec: Mapping[str, Any]) -> JobStatus: ...

    def job(self, key: str) -> JobStatus: ...


class SpreadJobs:
    """Each gateway gets the disks whose volumes it has. Raises what its clients raise."""

    def __init__(self, clients: Sequence[ServiceClient], where: Mapping[str, ServiceClient]) -> None:
        """`where`: the client of each volume's gateway."""
        self._clients = clients
        self._where = where

    def submit(self, key: str, spec: Mapping[str, Any]) -> JobStatus:
        parts = []
        for client in self._clients:
            disks = [disk for disk in spec["disks"] if self._where[disk["volume"]] is client]
            if disks:
                parts.append(client.submit(key, {**spec, "disks": disks}))
        return merged(parts)

    def job(self, key: str) -> JobStatus:
        return merged([client.job(key) for client in self._clients])


def merged(parts: Sequence[JobStatus]) -> JobStatus:
    """The state is the worst, progress and results are those of all; the root is that of all disks together."""
    worst = min(parts, key=lambda part: _WORST_FIRST.index(part.state))
    running = any(not part.state.final for part in parts)
    state = JobState.RUNNING if running and worst.state is JobState.QUEUED else worst.state
    return worst.model_copy(
        update={
            "state": state,
            "attempt": max(part.attempt for part in parts),
            "created": min(part.created for part in parts),
            "finished": None if running else max(part.finished for part in parts if part.finished is not None),
            "progress": _progress([part.progress for part in parts if part.progress is not None]),
            "result": _result(parts) if worst.state is JobState.SUCCEEDED else None,
        }
    )


def _progress(parts: Sequence[Progress]) -> Progress:
    etas = [part.eta_seconds for part in parts]
    known = [eta for eta in etas if eta is not None]
    summed = {name: sum(getattr(part, name) for part in parts) for name in _SUMMED}
    return Progress(**summed, eta_seconds=max(known) if known and len(known) == len(etas) else None)


def _result(parts: Sequence[JobStatus]) -> dict[str, Any]:
    results = [dict(part.result or {}) for part in parts]
    disks = [disk for result in results for disk in result.get("disks", [])]
    made: dict[str, Any] = {**results[0], "disks": disks}
    if "root" in made:
        made["root"] = generation_root((disk["disk"], bytes.fromhex(disk["root"])) for disk in disks).hex()
    return made
