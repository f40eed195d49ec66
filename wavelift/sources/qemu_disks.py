"""A live guest's disks as QEMU tells them, and what of ours is left in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wavelift.blocks.digest import SECTOR
from wavelift.blocks.errors import SourceError
from wavelift.sources.qmp import Qmp, QmpError

# All that is ours in a guest begins so: nodes, jobs, exports, bitmaps.
PREFIX = "wavelift-"
MOMENT = f"{PREFIX}moment-"  # bitmaps of a single cycle
GRANULARITY = 64 * 1024
_PATIENCE = 30.0
_SAFE_WITH_IOTHREADS = 9


@dataclass(frozen=True)
class GuestDisk:
    """`node` is what the guest writes to now. `size`, and `sector` as the guest sees it, in bytes."""

    node: str
    size: int
    sector: int
    persistent: bool
    bitmaps: Mapping[str, Mapping[str, Any]]


def require_survival(qmp: Qmp) -> None:
    """Raises `SourceError` where the guest would not outlive a reader: QEMU's NBD server, up to version 8, ends the
    whole process when the client of a disk with an iothread goes away (an assertion in nbd_blockdev_client_closed).
    """
    version = qmp.execute("query-version")["qemu"]
    if version["major"] < _SAFE_WITH_IOTHREADS and qmp.execute("query-iothreads"):
        raise SourceError(
            f"The guest has iothreads, and its QEMU is {version['major']}.{version['minor']}: it could end, with the "
            "guest, when a reader of its disks goes away.",
            f"Start it without iothreads or with QEMU {_SAFE_WITH_IOTHREADS} or later, or run the agent in the guest.",
            code="guest_at_risk",
        )


def find_disk(qmp: Qmp, name: str) -> GuestDisk:
    """By node name, drive id or device id. Only what a device of the guest writes to: not its backing files."""
    seen: list[str] = []
    for block in qmp.execute("query-block"):
        inserted = block.get("inserted")
        if inserted is None:
            continue
        node = inserted["node-name"]
        names = {node, block["device"], *block.get("qdev", "").split("/")} - {""}
        if name not in names:
            seen.append(node)
            continue
        image = inserted["image"]
        version = image.get("format-specific", {}).get("data", {}).get("compat")
        return GuestDisk(
            node=node,
            size=image["virtual-size"],
            sector=_sector(qmp, block.get("qdev", "")),
            persistent=inserted["drv"] == "qcow2" and version != "0.10",
            bitmaps={bitmap["name"]: bitmap for bitmap in inserted.get("dirty-bitmaps", []) if "name" in bitmap},
        )
    raise SourceError(
        f"The guest has no disk {name!r}; what its devices write to: {', '.join(seen) or 'nothing'}.",
        "Give the node name, the drive's id or the device's id.",
        code="disk_not_found",
    )


def _sector(qmp: Qmp, device: str) -> int:
    """Bytes; the usual ones where a kind of device has no such setting."""
    try:
        return int(qmp.execute("qom-get", {"path": device, "property": "logical_block_size"}))
    except QmpError:
        return SECTOR


def unusable(disk: GuestDisk, bitmap: str, size: int) -> str | None:
    """Why a bitmap cannot tell what changed since; None when it can. `size`: the disk's when it was begun."""
    found = disk.bitmaps.get(bitmap)
    if found is None:
        return "its bitmap is gone (QEMU was restarted, the disk is another, or somebody removed it)"
    if found.get("inconsistent"):
        return "its bitmap is inconsistent (QEMU did not end properly)"
    if disk.size != size:
        return f"it was resized from {size} to {disk.size} bytes"
    if not found["recording"] or found["granularity"] != GRANULARITY:
        return "its bitmap was changed by somebody"
    return None


def sweep(qmp: Qmp) -> None:
    """Remove what a cycle leaves in the guest's QEMU, of this process or one that was killed; no bitmap that
    keeps track from one cycle to the next. The guest is not disturbed. Raises `QmpError`."""
    for export in _ours(qmp, "query-block-exports", "id"):
        qmp.execute("block-export-del", {"id": export, "mode": "hard"})
    _wait(lambda: not _ours(qmp, "query-block-exports", "id"), "the exports")
    nodes = _ours(qmp, "query-named-block-nodes", "node-name")
    # QEMU has one NBD server. It is ours when our nodes are there and nobody else is served.
    if nodes and not qmp.execute("query-block-exports"):
        qmp.attempt("nbd-server-stop")
    for job in _ours(qmp, "query-jobs", "id"):
        qmp.attempt("job-cancel", {"id": job})
    _wait(lambda: not _unfinished(qmp), "the backup jobs")
    # Overlays before the files below them.
    for node in sorted(nodes, reverse=True):
        qmp.execute("blockdev-del", {"node-name": node})
    for fdset in qmp.execute("query-fdsets"):
        if any(entry.get("opaque", "").startswith(PREFIX) for entry in fdset["fds"]):
            qmp.attempt("remove-fd", {"fdset-id": fdset["fdset-id"]})
    for block in qmp.execute("query-block"):
        inserted = block.get("inserted") or {}
        for bitmap in inserted.get("dirty-bitmaps", []):
            if bitmap.get("name", "").startswith(MOMENT):
                drop(qmp, inserted["node-name"], bitmap["name"])


def drop(qmp: Qmp, node: str, bitmap: str) -> None:
    qmp.execute("block-dirty-bitmap-remove", {"node": node, "name": bitmap})


def finish_job(qmp: Qmp, job: str) -> None:
    """Wait for a job that was made to stay until dismissed. Raises `SourceError` with its error."""
    _wait(lambda: _job(qmp, job).get("status") == "concluded", f"job {job}")
    error = _job(qmp, job).get("error")
    qmp.execute("job-dismiss", {"id": job})
    if error:
        raise SourceError(f"QEMU could not make the scratch file of a point in time: {error}.", "Check the disk space.")


def running(qmp: Qmp, job: str) -> bool:
    return _job(qmp, job).get("status") == "running"


def _job(qmp: Qmp, job: str) -> dict[str, Any]:
    return next((found for found in qmp.execute("query-jobs") if found["id"] == job), {})


def _unfinished(qmp: Qmp) -> list[str]:
    for job in qmp.execute("query-jobs"):
        if job["id"].startswith(PREFIX) and job["status"] == "concluded":
            qmp.attempt("job-dismiss", {"id": job["id"]})
    return _ours(qmp, "query-jobs", "id")


def _ours(qmp: Qmp, query: str, field: str) -> list[str]:
    arguments = {"flat": True} if query == "query-named-block-nodes" else None
    return [found[field] for found in qmp.execute(query, arguments) if found.get(field, "").startswith(PREFIX)]


def _wait(there: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not there():
        if time.monotonic() > deadline:
            raise SourceError(f"QEMU does not end {what} of Wavelift.", "See the guest's log; it runs on.")
        time.sleep(0.01)
