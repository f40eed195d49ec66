import time
from typing import Any

from wavelift.localcloud.actions.paging import page, tag_list
from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.entities import REGION, Snapshot
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.model.tags import matches
from wavelift.localcloud.rpc.parameters import Parameters
from wavelift.localcloud.rpc.wire import timestamp
from wavelift.localcloud.states import SnapshotStatus

STATUSES = frozenset({"progressing", "accomplished", "failed", "all"})


@action("CreateSnapshot")
def create_snapshot(cloud: Cloud, p: Parameters) -> Reply:
    snapshot = cloud.snapshots.create(
        p.required("DiskId"),
        p.text("SnapshotName") or "",
        p.text("Description") or "",
        p.tags(),
        p.token("CreateSnapshot", status=403),
    )
    return {"SnapshotId": snapshot}


@action("DeleteSnapshot")
def delete_snapshot(cloud: Cloud, p: Parameters) -> Reply:
    cloud.snapshots.delete(p.required("SnapshotId"), p.flag("Force"))
    return {}


@action("DescribeSnapshots")
def describe_snapshots(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    ids, tags = p.json_list("SnapshotIds"), p.wanted_tags()
    status, disk, name = p.choice("Status", STATUSES), p.text("DiskId"), p.text("SnapshotName")
    instance = p.text("InstanceId")
    disks = {found.id for found in cloud.instances.disks(instance)} if instance else None
    snapshots = [
        snapshot
        for snapshot in cloud.snapshots.all()
        if (ids is None or snapshot.id in ids)
        and (disks is None or snapshot.disk in disks)
        and disk in {None, snapshot.disk}
        and name in {None, snapshot.name}
        and status in {None, "all", snapshot.status.value}
        and matches(snapshot.tags, tags)
    ]
    found, fields = page(p, snapshots)
    usage = cloud.snapshots.usage()
    return {**fields, "Snapshots": {"Snapshot": [_describe(s, usage.get(s.id, "none")) for s in found]}}


def _describe(snapshot: Snapshot, usage: str) -> dict[str, Any]:
    return {
        "SnapshotId": snapshot.id,
        "SnapshotName": snapshot.name,
        "Description": snapshot.description,
        "RegionId": REGION,
        "Status": snapshot.status.value,
        "Progress": progress(snapshot),
        "Available": snapshot.status is SnapshotStatus.ACCOMPLISHED,
        "SourceDiskId": snapshot.disk,
        "SourceDiskSize": str(snapshot.disk_size),
        "SourceDiskType": snapshot.disk_type,
        "SnapshotType": "user",
        "Usage": usage,
        "Encrypted": False,
        "CreationTime": timestamp(snapshot.created),
        "Tags": tag_list(snapshot.tags),
    }


def progress(snapshot: Snapshot) -> str:
    """By the clock: not 100% before it is accomplished."""
    if snapshot.status is SnapshotStatus.ACCOMPLISHED:
        return "100%"
    if snapshot.busy is None:
        return "0%"
    whole = max(snapshot.busy.due - snapshot.busy.started, 0.001)
    part = (time.time() - snapshot.busy.started) / whole
    return f"{max(0, min(99, int(part * 100)))}%"
