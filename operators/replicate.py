"""One generation from agent to volumes: copy, read back, compare roots, commit. Full copy and cycles share it.

Where the read-back differs, the blocks it differs in are sent again and all is read back again, twice at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from operators.run import MigrationRun
from operators.step import Event, Outcome, StepFailed, StepOperator
from storage_backends.base import BootableBackend
from wavelift.service.jobs import JobState, JobStatus

MAX_REPAIRS = 2
# Of a disk, in an error and in the record of a cycle; the job's result names more.
_NAMED = 5


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
    """A trigger while one of its jobs runs; the generation's record once it is committed.

    The generation of the record is a later one where a volume lost blocks that the source no longer had: the one
    asked for cannot be had any more, and its successor is made at once.
    """
    volumes = {disk.id: run.volume(backend, disk.id).id for disk in run.disks}
    copies: dict[str, JobStatus] = {}
    repairs: list[dict[str, Any]] = []
    with run.agent() as agent, run.gateway(backend) as gateway:
        while True:
            sinks = [
                {"disk": disk, "sink": backend.sink(volume, run.labels(), generation).model_dump()}
                for disk, volume in volumes.items()
            ]
            about = {"migration": run.key, "generation": generation}
            copy_key = run.job_key(generation, "copy")
            spec = {"kind": "replicate", **about, "base": base, "disks": sinks, "bandwidth": run.bandwidth}
            copied = step.job(agent, copy_key, spec, event)
            if copied.state is not JobState.SUCCEEDED:
                return step.wait_for_agent(run, copy_key)
            source = _result(copied)
            copies[copy_key] = copied
            # A verification stands for the copy and the repairs it followed, never for later ones.
            stamp = f"{copied.created:%Y%m%dT%H%M%S}-{copied.attempt}-{len(repairs)}"
            verify_key = run.job_key(generation, f"verify-{stamp}")
            disks = [
                {"disk": each["disk"], "volume": volumes[each["disk"]], "size": each["size"]}
                for each in source["disks"]
            ]
            verified = step.job(gateway, verify_key, {"kind": "verify", **about, "disks": disks}, event)
            if verified.state is not JobState.SUCCEEDED:
                return step.wait_for_gateway(run, verify_key)
            target = _result(verified)
            if source["root"] == target["root"]:
                break
            if len(repairs) == MAX_REPAIRS:
                raise _mismatch(run, volumes, generation, source, target, repairs)
            repair_key = run.job_key(generation, f"repair-{stamp}")
            repair = {"kind": "repair", **about, "disks": sinks, "bandwidth": run.bandwidth}
            repaired = step.job(agent, repair_key, repair, event)
            if repaired.state is not JobState.SUCCEEDED:
                return step.wait_for_agent(run, repair_key)
            found = _result(repaired)
            repairs.append(_repair(found))
            step.log.warning("generation %d did not read back as it was sent: %s", generation, repairs[-1])
            if found["pending_bytes"]:
                base, generation = generation, generation + 1
        agent.post(f"/v1/migrations/{run.key}/generations/{generation}/commit")
    every = [disk for copied in copies.values() for disk in _result(copied)["disks"]]
    return {
        "generation": generation,
        "source_root": source["root"],
        "target_root": target["root"],
        "disks": source["disks"],
        "sent_bytes": sum(disk["sent_bytes"] for disk in every),
        "wire_bytes": sum(disk["wire_bytes"] for disk in every) + sum(each["wire_bytes"] for each in repairs),
        "notes": source.get("notes", []),
        "repairs": repairs,
        "copy_seconds": round(sum(_seconds(copied) for copied in copies.values()), 2),
        "verify_seconds": _seconds(verified),
    }


def _repair(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a repair did, for the record."""
    wrong = [disk for disk in found["disks"] if disk["differing_bytes"]]
    return {
        "generation": found["generation"],
        "wire_bytes": sum(disk["wire_bytes"] for disk in wrong),
        "disks": [
            {
                "disk": disk["disk"],
                "differing_bytes": disk["differing_bytes"],
                "differing": disk["differing"][:_NAMED],
                "pending_bytes": disk["pending_bytes"],
            }
            for disk in wrong
        ],
    }


def _mismatch(
    run: MigrationRun,
    volumes: Mapping[str, str],
    generation: int,
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    repairs: list[dict[str, Any]],
) -> RootMismatch:
    written = {disk["disk"]: disk["root"] for disk in target["disks"]}
    wrong = [disk["disk"] for disk in source["disks"] if written.get(disk["disk"]) != disk["root"]]
    seen = [
        f"{disk['disk']} ({volumes[disk['disk']]}): {disk['differing_bytes']} bytes, first at "
        + ", ".join(str(each["offset"]) for each in disk["differing"])
        for disk in repairs[-1]["disks"]
    ]
    return RootMismatch(
        f"Generation {generation} of {run.key}: after {len(repairs)} repairs the volume of {', '.join(wrong)} still "
        f"does not hold what was read. The last repair sent again: {'; '.join(seen) or 'nothing'}.",
        "Blocks that are wrong each time point to the volume or to the gateway's memory: look for I/O errors in the "
        "gateway's kernel log, and replace the volume. Others point to something else that writes to it.",
    )


def _result(status: JobStatus) -> dict[str, Any]:
    if not status.result:
        raise StepFailed(f"Job {status.key} succeeded without a result.", "Report this as a defect.")
    return dict(status.result)


def _seconds(status: JobStatus) -> float:
    if status.finished is None:
        return 0.0
    return round((status.finished - status.created).total_seconds(), 2)
