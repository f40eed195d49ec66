"""What is said of blocks that did not arrive: for the record of a cycle, and for who has to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from operators.step import StepFailed

# Of a disk, in an error and in the record of a cycle; the job's result names more.
_NAMED = 5


class RootMismatch(StepFailed):
    """What was read back is not what the agent read."""

    default_code = "root_mismatch"


def repair_of(found: Mapping[str, Any]) -> dict[str, Any]:
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


def lost_of(generation: int, lost: Mapping[str, Sequence[Mapping[str, int]]]) -> dict[str, Any]:
    """What an archive had lost of a generation, by disk, in the form of a repair: the next generation brings it."""
    disks = []
    for disk, ranges in lost.items():
        total = sum(each["length"] for each in ranges)
        disks.append(
            {
                "disk": disk,
                "differing_bytes": total,
                "differing": list(ranges[:_NAMED]),
                "pending_bytes": total,
            }
        )
    return {"generation": generation, "wire_bytes": 0, "disks": disks}


def mismatch(
    key: str,
    places: Mapping[str, str],
    generation: int,
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    repairs: Sequence[Mapping[str, Any]],
) -> RootMismatch:
    """The error of a generation that cannot be had right. `places`: what keeps each disk, by disk."""
    written = {disk["disk"]: disk["root"] for disk in target["disks"]}
    wrong = [disk["disk"] for disk in source["disks"] if written.get(disk["disk"]) != disk["root"]]
    seen = [
        f"{disk['disk']} ({places[disk['disk']]}): {disk['differing_bytes']} bytes, first at "
        + ", ".join(str(each["offset"]) for each in disk["differing"])
        for disk in repairs[-1]["disks"]
    ]
    return RootMismatch(
        f"Generation {generation} of {key}: after {len(repairs)} repairs the volume of {', '.join(wrong)} still "
        f"does not hold what was read. The last repair sent again: {'; '.join(seen) or 'nothing'}.",
        "Blocks that are wrong each time point to the volume or to the gateway's memory: look for I/O errors in the "
        "gateway's kernel log, and replace the volume. Others point to something else that writes to it.",
    )
