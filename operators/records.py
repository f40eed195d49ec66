"""What is written down of a generation that arrived."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from operators.step import StepFailed
from wavelift.manifest.route import Carrier
from wavelift.service.jobs import JobStatus


def record_of(
    generation: int,
    carrier: Carrier,
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    copies: Collection[JobStatus],
    hydrations: Collection[JobStatus],
    proof: JobStatus,
    repairs: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """From the jobs that brought it. `source` and `target` hold what was read and what was read back; `wire_bytes`
    left the agent, `hydrated_bytes` went from an archive to the gateway."""
    sent = [disk for copied in copies for disk in result_of(copied)["disks"]]
    return {
        "generation": generation,
        "carrier": carrier.value,
        "source_root": source["root"],
        "target_root": target["root"],
        "disks": source["disks"],
        "sent_bytes": sum(disk["sent_bytes"] for disk in sent),
        "wire_bytes": sum(disk["wire_bytes"] for disk in sent) + sum(each["wire_bytes"] for each in repairs),
        "hydrated_bytes": sum(disk["wire_bytes"] for each in hydrations for disk in result_of(each)["disks"]),
        "notes": source.get("notes", []),
        "repairs": list(repairs),
        "copy_seconds": round(sum(_seconds(copied) for copied in copies), 2),
        "hydrate_seconds": round(sum(_seconds(each) for each in hydrations), 2),
        "verify_seconds": _seconds(proof),
    }


def result_of(status: JobStatus) -> dict[str, Any]:
    """Raises StepFailed."""
    if not status.result:
        raise StepFailed(f"Job {status.key} succeeded without a result.", "Report this as a defect.")
    return dict(status.result)


def _seconds(status: JobStatus) -> float:
    if status.finished is None:
        return 0.0
    return round((status.finished - status.created).total_seconds(), 2)
