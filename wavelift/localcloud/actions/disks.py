from typing import Any

from wavelift.localcloud.actions import fields
from wavelift.localcloud.actions.paging import Limits, identifiers, page, tag_list
from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.entities import REGION, Disk
from wavelift.localcloud.errors import ApiError, invalid, missing
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.model.disks import DiskAttributes, DiskOrder
from wavelift.localcloud.model.tags import matches
from wavelift.localcloud.rpc.formats import timestamp
from wavelift.localcloud.rpc.parameters import Parameters

STATUSES = frozenset({"In_use", "Available", "Attaching", "Detaching", "Creating", "ReIniting", "All"})
LIMITS = Limits(least=10, most=500, nearest=True)
# What every disk here has in common, and requests may filter by.
SHARED: dict[str, Any] = {
    "Portable": True,
    "Encrypted": False,
    "MultiAttach": "Disabled",
    "DiskChargeType": "PostPaid",
    "EnableAutoSnapshot": True,
    "EnableAutomatedSnapshotPolicy": False,
    "AutoSnapshotPolicyId": "",
    "KMSKeyId": "",
    "ResourceGroupId": "",
}


@action("CreateDisk")
def create_disk(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    fields.not_encrypted(p)
    fields.no_resource_group(p)
    fields.unsupported(p, "InstanceId", "StorageSetId", "StorageClusterId")
    if p.choice("MultiAttach", frozenset({"Disabled", "Enabled"})) == "Enabled":
        raise invalid("MultiAttach", "This cloud attaches a disk to one instance at a time.")
    order = DiskOrder(
        zone=p.required("ZoneId"),
        category=p.text("DiskCategory") or "cloud",
        level=p.text("PerformanceLevel"),
        size=p.integer("Size", 1),
        snapshot=p.text("SnapshotId"),
        bursting=p.flag("BurstingEnabled"),
        provisioned_iops=p.integer("ProvisionedIops", 0) or 0,
        name=fields.name(p, "DiskName") or "",
        description=fields.description(p) or "",
        tags=p.tags(),
    )
    return {"DiskId": cloud.disks.create(order, p.token("CreateDisk"))}


@action("AttachDisk")
def attach_disk(cloud: Cloud, p: Parameters) -> Reply:
    if p.flag("Force"):
        raise invalid("Force", "Only regional disks are attached by force.")
    cloud.disks.attach(
        p.required("DiskId"),
        p.required("InstanceId"),
        bootable=p.flag("Bootable"),
        credentials=fields.password(p) is not None or p.text("KeyPairName") is not None,
        delete_with_instance=p.flag("DeleteWithInstance"),
        device=fields.device(p),
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


@action("ResizeDisk")
def resize_disk(cloud: Cloud, p: Parameters) -> Reply:
    kind = p.text("Type") or "offline"
    if kind not in {"offline", "online"}:
        raise ApiError("InvalidParam.Type", "The specified type is not supported.")
    size = p.integer("NewSize", 1)
    if size is None:
        raise missing("NewSize")
    cloud.disk_changes.resize(p.required("DiskId"), size, kind == "online", p.token("ResizeDisk"))
    return {}


@action("ModifyDiskAttribute")
def modify_disk_attribute(cloud: Cloud, p: Parameters) -> Reply:
    single, several = p.text("DiskId"), identifiers(p, "DiskIds", 100)
    if single and several:
        raise ApiError("InvalidParameter.Conflict", "DiskId and DiskIds.N cannot be specified both.")
    if not single and not several:
        raise missing("DiskId")
    change = DiskAttributes(
        name=fields.name(p, "DiskName"),
        description=fields.description(p),
        delete_with_instance=fields.either(p, "DeleteWithInstance"),
        delete_auto_snapshot=fields.either(p, "DeleteAutoSnapshot"),
        bursting=fields.either(p, "BurstingEnabled"),
    )
    cloud.disks.modify([single] if single else several, change)
    return {}


@action("ModifyDiskSpec")
def modify_disk_spec(cloud: Cloud, p: Parameters) -> Reply:
    fields.unsupported(p, "DestinationZoneId", "PerformanceControlOptions.IOPS", "PerformanceControlOptions.Throughput")
    task = cloud.disk_changes.modify_spec(
        p.required("DiskId"),
        p.text("DiskCategory"),
        p.text("PerformanceLevel"),
        p.integer("ProvisionedIops", 0),
        p.flag("DryRun"),
    )
    return {"TaskId": task} if task else {}


@action("ReInitDisk")
def reinit_disk(cloud: Cloud, p: Parameters) -> Reply:
    fields.password(p)
    p.choice("SecurityEnhancementStrategy", frozenset({"Active", "Deactive"}))
    cloud.disk_changes.reinit(p.required("DiskId"), p.flag("AutoStartInstance"))
    return {}


@action("ResetDisk")
def reset_disk(cloud: Cloud, p: Parameters) -> Reply:
    cloud.disk_changes.reset(p.required("DiskId"), p.required("SnapshotId"), p.flag("DryRun"))
    return {}


@action("DescribeDisks")
def describe_disks(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    found, about = page(p, fields.created_within(p, _matching(cloud, p)), LIMITS)
    fields.dry_run(p)
    return {**about, "Disks": {"Disk": [_describe(disk) for disk in found]}}


def _matching(cloud: Cloud, p: Parameters) -> list[Disk]:
    ids, tags = p.json_list("DiskIds"), p.wanted_tags()
    status = p.choice("Status", STATUSES)
    exact = {
        "instance": p.text("InstanceId"),
        "source_snapshot": p.text("SnapshotId"),
        "name": p.text("DiskName"),
        "zone": p.text("ZoneId"),
        "category": p.text("Category"),
        "performance_level": p.text("PerformanceLevel"),
        "type": p.choice("DiskType", frozenset({"all", "system", "data"})),
        "delete_with_instance": fields.either(p, "DeleteWithInstance"),
        "delete_auto_snapshot": fields.either(p, "DeleteAutoSnapshot"),
    }
    wanted = {name: value for name, value in exact.items() if value not in {None, "all"}}
    if not _shared(p):
        return []
    return [
        disk
        for disk in cloud.disks.all()
        if (ids is None or disk.id in ids)
        and status in {None, "All", disk.status.value}
        and all(getattr(disk, name) == value for name, value in wanted.items())
        and matches(disk.tags, tags)
    ]


def _shared(p: Parameters) -> bool:
    """May a disk of this cloud be meant at all?"""
    for name, value in SHARED.items():
        wanted = fields.either(p, name) if isinstance(value, bool) else p.text(name)
        if wanted not in {None, value}:
            return False
    return p.text("LockReason") is None and not p.flag("EnableShared")


def _describe(disk: Disk) -> dict[str, Any]:
    attached = timestamp(disk.attached_at) if disk.instance else ""
    attachment = {"InstanceId": disk.instance, "Device": disk.device, "AttachedTime": attached}
    attachments = [attachment] if disk.instance else []
    return {
        **SHARED,
        "DiskId": disk.id,
        "DiskName": disk.name,
        "Description": disk.description,
        "RegionId": REGION,
        "ZoneId": disk.zone,
        "Status": disk.status.value,
        "Type": disk.type,
        "Category": disk.category,
        "PerformanceLevel": disk.performance_level,
        "BurstingEnabled": disk.bursting,
        "ProvisionedIops": disk.provisioned_iops,
        "Size": disk.size,
        "SerialNumber": disk.serial,
        "SourceSnapshotId": disk.source_snapshot,
        "ImageId": disk.image,
        "InstanceId": disk.instance,
        "Device": disk.device,
        "Attachments": {"Attachment": attachments},
        "MountInstances": {"MountInstance": attachments},
        "MountInstanceNum": len(attachments),
        "OperationLocks": {"OperationLock": []},
        "DeleteWithInstance": disk.delete_with_instance,
        "DeleteAutoSnapshot": disk.delete_auto_snapshot,
        "ProductCode": "",
        "CreationTime": timestamp(disk.created),
        "AttachedTime": attached,
        "DetachedTime": timestamp(disk.detached_at),
        "Tags": tag_list(disk.tags),
    }
