"""One generation from agent to volumes: copy, read back, compare roots, commit. Full copy and cycles share it."""

from __future__ import annotations

from typing import Any

from operators.run import MigrationRun
from operators.step import Event, Outcome, StepFailed, StepOperator
from storage_backends.base import BootableBackend
from wavelift.service.jobs import JobState, JobStatus


class RootMismatch(StepFailed):
    """What the gateway read back is not what the agent read."""

    default_code = "root_mismatch"


def replicate(
    step: StepOperator,
    run: MigrationRun,
    backend: BootableBackend,
    generation: int,
    base: int | None,
    event: Event,
) -> Outcome:
    """A trigger while the copy or its verification runs; the generation's record once it is committed."""
    volumes = {disk.id: run.volume(backend, disk.id).id for disk in run.disks}
    copy_key = run.job_key(generation, "copy")
    with run.agent() as agent:
        copied = step.job(
            agent,
            copy_key,
            {
                "kind": "replicate",
                "migration": run.key,
                "generation": generation,
                "base": base,
                "disks": [
                    {"disk": disk, "sink": backend.sink(volume, run.labels(), generation).model_dump()}
                    for disk, volume in volumes.items()
                ],
            },
            event,
        )
        if copied.state is not JobState.SUCCEEDED:
            return step.wait_for_agent(run, copy_key)
        source = _result(copied)
        # A verification stands for the copy it followed, never for a later one.
        verify_key = run.job_key(generation, f"verify-{copied.created:%Y%m%dT%H%M%S}-{copied.attempt}")
        with run.gateway(backend) as gateway:
            verified = step.job(
                gateway,
                verify_key,
                {
                    "kind": "verify",
                    "migration": run.key,
                    "generation": generation,
                    "disks": [
                        {"disk": each["disk"], "volume": volumes[each["disk"]], "size": each["size"]}
                        for each in source["disks"]
                    ],
                },
                event,
            )
        if verified.state is not JobState.SUCCEEDED:
            return step.wait_for_gateway(run, verify_key)
        target = _result(verified)
        _compare(run, generation, source, target)
        agent.post(f"/v1/migrations/{run.key}/generations/{generation}/commit")
    return {
        "generation": generation,
        "source_root": source["root"],
        "target_root": target["root"],
        "disks": source["disks"],
        "sent_bytes": sum(disk["sent_bytes"] for disk in source["disks"]),
        "wire_bytes": sum(disk["wire_bytes"] for disk in source["disks"]),
        "notes": source.get("notes", []),
        "copy_seconds": _seconds(copied),
        "verify_seconds": _seconds(verified),
    }


def _compare(run: MigrationRun, generation: int, source: dict[str, Any], target: dict[str, Any]) -> None:
    if source["root"] == target["root"]:
        return
    written = {disk["disk"]: disk["root"] for disk in target["disks"]}
    wrong = [disk["disk"] for disk in source["disks"] if written.get(disk["disk"]) != disk["root"]]
    raise RootMismatch(
        f"Generation {generation} of {run.key}: the volume of {', '.join(wrong)} does not hold what was read.",
        "Trigger the migration again; if it happens twice, check the source's disk and the network path.",
    )


def _result(status: JobStatus) -> dict[str, Any]:
    if not status.result:
        raise StepFailed(f"Job {status.key} succeeded without a result.", "Report this as a defect.")
    return dict(status.result)


def _seconds(status: JobStatus) -> float:
    if status.finished is None:
        return 0.0
    return round((status.finished - status.created).total_seconds(), 2)
