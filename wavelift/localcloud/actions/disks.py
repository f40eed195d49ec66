from typing import Any

from wavelift.localcloud.actions.paging import page, tag_list
from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.entities import REGION, Disk
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.model.disks import DiskOrder
from wavelift.localcloud.model.tags import matches
from wavelift.localcloud.rpc.parameters import Parameters
from wavelift.localcloud.rpc.wire import timestamp

STATUSES = frozenset({"In_use", "Available", "Attaching", "Detaching", "Creating", "ReIniting", "All"})


@action("CreateDisk")
def create_disk(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    order = DiskOrder(
        zone=p.required("ZoneId"),
        category=p.text("DiskCategory") or "cloud",
        level=p.text("PerformanceLevel"),
        size=p.integer("Size", 1),
        snapshot=p.text("SnapshotId"),
        name=p.text("DiskName") or "",
        description=p.text("Description") or "",
        tags=p.tags(),
    )
    return {"DiskId": cloud.disks.create(order, p.token("CreateDisk"))}


@action("AttachDisk")
def attach_disk(cloud: Cloud, p: Parameters) -> Reply:
    cloud.disks.attach(
        p.required("DiskId"),
        p.required("InstanceId"),
        bootable=p.flag("Bootable"),
        credentials=p.text("Password") is not None or p.text("KeyPairName") is not None,
        delete_with_instance=p.flag("DeleteWithInstance"),
    )
    return {}


@action("DetachDisk")
def detach_disk(cloud: Cloud, p: Parameters) -> Reply:
    cloud.disks.detach(p.required("DiskId"), p.required("InstanceId"))
    return {}


@action("DeleteDisk")
def delete_disk(cloud: Cloud, p: Parameters) -> Reply:
    cloud.disks.delete(p.required("DiskId"))
    return {}


@action("DescribeDisks")
def describe_disks(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    ids, tags = p.json_list("DiskIds"), p.wanted_tags()
    status = p.choice("Status", STATUSES)
    exact = {
        "instance": p.text("InstanceId"),
        "source_snapshot": p.text("SnapshotId"),
        "name": p.text("DiskName"),
        "zone": p.text("ZoneId"),
        "category": p.text("Category"),
        "type": p.text("DiskType"),
    }
    disks = [
        disk
        for disk in cloud.disks.all()
        if (ids is None or disk.id in ids)
        and status in {None, "All", disk.status.value}
        and all(value in {None, "all", getattr(disk, name)} for name, value in exact.items())
        and matches(disk.tags, tags)
    ]
    found, fields = page(p, disks)
    return {**fields, "Disks": {"Disk": [_describe(disk) for disk in found]}}


def _describe(disk: Disk) -> dict[str, Any]:
    attached = timestamp(disk.attached_at) if disk.instance else ""
    attachment = {"InstanceId": disk.instance, "Device": disk.device, "AttachedTime": attached}
    return {
        "DiskId": disk.id,
        "DiskName": disk.name,
        "Description": disk.description,
        "RegionId": REGION,
        "ZoneId": disk.zone,
        "Status": disk.status.value,
        "Type": disk.type,
        "Category": disk.category,
        "PerformanceLevel": disk.performance_level,
        "Size": disk.size,
        "SerialNumber": disk.serial,
        "SourceSnapshotId": disk.source_snapshot,
        "ImageId": disk.image,
        "InstanceId": disk.instance,
        "Device": disk.device,
        "Attachments": {"Attachment": [attachment] if disk.instance else []},
        "DeleteWithInstance": disk.delete_with_instance,
        "Portable": True,
        "Encrypted": False,
        "DiskChargeType": "PostPaid",
        "CreationTime": timestamp(disk.created),
        "AttachedTime": attached,
        "DetachedTime": timestamp(disk.detached_at),
        "Tags": tag_list(disk.tags),
    }
