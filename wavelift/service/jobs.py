"""What a job is: its states, and what is reported about it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


# The only way a job changes: running -> queued is a restart of the service, failed/cancelled -> queued a
# resubmission.
TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.QUEUED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
}

# What a resubmission may replace. URL and fingerprint go with their token: a service set up anew changes all three.
# A bucket is its name; how it is reached may have been wrong, or there is a shorter way.
# Folders are where the disks of one set are mounted, one more of them when the others are full.
REPLACEABLE_FIELDS = frozenset(
    {
        *("url", "fingerprint", "token", "password", "secret", "access_key_id", "access_key_secret"),
        *("endpoint", "by_path", "region", "bandwidth", "folders", "wait_seconds"),
    }
)


class Progress(BaseModel):
    """Sizes in bytes, rate in bytes per second, `eta_seconds` null while unknown.

    Of `total_bytes` of disk, `done_bytes` are dealt with: `read_bytes` from the source, `skipped_bytes` without
    reading them (holes, and what a tracker calls unchanged). `wire_bytes` of packs were sent, `written_bytes` became
    durable at the target, `verified_bytes` were read back there.
    """

    model_config = ConfigDict(frozen=True)

    total_bytes: int = 0
    done_bytes: int = 0
    read_bytes: int = 0
    skipped_bytes: int = 0
    wire_bytes: int = 0
    written_bytes: int = 0
    verified_bytes: int = 0
    bytes_per_second: float = 0.0
    eta_seconds: float | None = None


class Moved:
    """What the jobs of this process have moved since it began, in bytes; `kinds` are what they can move at all."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._totals = dict.fromkeys(kinds, 0)

    def add(self, before: Progress, now: Progress) -> None:
        with self._lock:
            for name in self._totals:
                more = getattr(now, f"{name}_bytes") - getattr(before, f"{name}_bytes")
                self._totals[name] += max(0, more)

    def totals(self) -> dict[str, int]:
        with self._lock:
            return dict(self._totals)


class JobError(BaseModel):
    model_config = ConfigDict(frozen=True)

    code: str
    message: str
    remedy: str = ""


class JobStatus(BaseModel):
    """What `GET /v1/jobs/{key}` answers. Never holds the spec: specs carry credentials."""

    model_config = ConfigDict(frozen=True)

    key: str
    kind: str
    state: JobState
    attempt: int = 1
    step: str = ""
    progress: Progress = Progress()
    result: dict[str, Any] | None = None
    error: JobError | None = None
    created: datetime
    finished: datetime | None = None


def unchanging(value: Any) -> Any:
    """The same JSON value without what a resubmission may replace, at any depth."""
    if isinstance(value, Mapping):
        return {k: unchanging(v) for k, v in value.items() if k not in REPLACEABLE_FIELDS}
    if isinstance(value, list):
        return [unchanging(v) for v in value]
    return value
