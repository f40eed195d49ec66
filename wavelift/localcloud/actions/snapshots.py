from typing import Any

from wavelift.localcloud.actions import fields
from wavelift.localcloud.actions.paging import page, tag_list
from wavelift.localcloud.actions.progress import progress, remaining
from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.entities import REGION, Snapshot
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.model.snapshots import SnapshotOrder
from wavelift.localcloud.model.tags import matches
from wavelift.localcloud.rpc.formats import timestamp
from wavelift.localcloud.rpc.parameters import Parameters
from wavelift.localcloud.states import SnapshotStatus

STATUSES = frozenset({"progressing", "accomplished", "failed", "all"})
USAGES = frozenset({"image", "disk", "image_disk", "none"})
LONGEST_RETENTION = 65536


@action("CreateSnapshot")
def create_snapshot(cloud: Cloud, p: Parameters) -> Reply:
    """Flash snapshots and instant access are of the past: ECS takes their parameters, and so does this."""
    fields.no_resource_group(p)
    p.choice("Category", frozenset({"Standard", "standard", "Flash", "flash"}))
    p.flag("InstantAccess")
    p.integer("InstantAccessRetentionDays", 1, 65535)
    order = SnapshotOrder(
        name=fields.name(p, "SnapshotName", ("auto",)) or "",
        description=fields.description(p) or "",
        tags=p.tags(),
        retention_days=p.integer("RetentionDays", 1, LONGEST_RETENTION) or 0,
    )
    return {"SnapshotId": cloud.snapshots.create(p.required("DiskId"), order, p.token("CreateSnapshot", status=403))}


@action("CopySnapshot")
def copy_snapshot(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    check_region(p.required("DestinationRegionId"))
    fields.not_encrypted(p)
    fields.no_resource_group(p)
    order = SnapshotOrder(
        name=fields.name(p, "DestinationSnapshotName", ("auto",)) or "",
        description=fields.description(p, "DestinationSnapshotDescription") or "",
        tags=p.tags(),
        retention_days=p.integer("RetentionDays", 1, LONGEST_RETENTION) or 0,
    )
    return {"SnapshotId": cloud.snapshots.duplicate(p.required("SnapshotId"), order, p.token("CopySnapshot"))}


@action("ModifySnapshotAttribute")
def modify_snapshot_attribute(cloud: Cloud, p: Parameters) -> Reply:
    p.flag("DisableInstantAccess")
    cloud.snapshots.modify(
        p.required("SnapshotId"),
        fields.name(p, "SnapshotName", ("auto",)),
        fields.description(p),
        p.integer("RetentionDays", 1, LONGEST_RETENTION),
    )
    return {}


@action("DeleteSnapshot")
def delete_snapshot(cloud: Cloud, p: Parameters) -> Reply:
    cloud.snapshots.delete(p.required("SnapshotId"), p.flag("Force"))
    return {}


@action("DescribeSnapshots")
def describe_snapshots(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    usage = cloud.snapshots.usage()
    found, about = page(p, fields.created_within(p, _matching(cloud, p, usage)))
    fields.dry_run(p)
    return {**about, "Snapshots": {"Snapshot": [_describe(s, usage.get(s.id, "none")) for s in found]}}


def _matching(cloud: Cloud, p: Parameters, usage: dict[str, str]) -> list[Snapshot]:
    ids, tags = p.json_list("SnapshotIds"), p.wanted_tags()
    status, used = p.choice("Status", STATUSES), p.choice("Usage", USAGES)
    instance = p.text("InstanceId")
    disks = {found.id for found in cloud.instances.disks(instance)} if instance else None
    exact = {
        "disk": p.text("DiskId"),
        "name": p.text("SnapshotName"),
        "disk_type": kind.lower() if (kind := p.text("SourceDiskType")) else None,
    }
    wanted = {name: value for name, value in exact.items() if value is not None}
    link = p.text("SnapshotLinkId")
    if not _shared(p):
        return []
    return [
        snapshot
        for snapshot in cloud.snapshots.all()
        if (ids is None or snapshot.id in ids)
        and (disks is None or snapshot.disk in disks)
        and status in {None, "all", snapshot.status.value}
        and (used is None or used == usage.get(snapshot.id, "none"))
        and (link is None or link == _link(snapshot))
        and all(getattr(snapshot, name) == value for name, value in wanted.items())
        and matches(snapshot.tags, tags)
    ]


def _shared(p: Parameters) -> bool:
    """May a snapshot of this cloud be meant at all? All are standard ones, made by hand and not encrypted."""
    kind = p.choice("SnapshotType", frozenset({"auto", "user", "all"}))
    category = (p.text("Category") or "standard").lower()
    other = p.text("ResourceGroupId") or p.text("KMSKeyId")
    return kind != "auto" and category == "standard" and other is None and not p.flag("Encrypted")


def _link(snapshot: Snapshot) -> str:
    """The chain of a disk's snapshots; a copy begins one of its own."""
    first = snapshot.id if snapshot.source_snapshot else snapshot.disk
    return f"sl-{first.partition('-')[2]}"


def _describe(snapshot: Snapshot, usage: str) -> dict[str, Any]:
    done = snapshot.status is SnapshotStatus.ACCOMPLISHED
    return {
        "SnapshotId": snapshot.id,
        "SnapshotName": snapshot.name,
        "Description": snapshot.description,
        "RegionId": REGION,
        "Status": snapshot.status.value,
        "Progress": progress(snapshot, done),
        "RemainTime": remaining(snapshot),
        "Available": done,
        "SourceDiskId": snapshot.disk,
        "SourceDiskSize": str(snapshot.disk_size),
        "SourceDiskType": snapshot.disk_type,
        "SourceStorageType": "disk",
        "SourceSnapshotId": snapshot.source_snapshot,
        "SourceRegionId": REGION if snapshot.source_snapshot else "",
        "SnapshotLinkId": _link(snapshot),
        "SnapshotType": "user",
        "Category": "standard",
        "InstantAccess": False,
        "RetentionDays": snapshot.retention_days,
        "Usage": usage,
        "Encrypted": False,
        "KMSKeyId": "",
        "ProductCode": "",
        "ResourceGroupId": "",
        "CreationTime": timestamp(snapshot.created),
        "LastModifiedTime": timestamp(snapshot.modified or snapshot.created),
        "Tags": tag_list(snapshot.tags),
    }
