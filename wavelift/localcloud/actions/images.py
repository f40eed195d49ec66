from fnmatch import fnmatchcase
from typing import Any, cast

from wavelift.localcloud.actions.paging import page, tag_list
from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.entities import REGION, DiskType, Image
from wavelift.localcloud.errors import ApiError, dry_run_passed, invalid
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.model.images import ImageOrder, Mapping
from wavelift.localcloud.model.tags import matches
from wavelift.localcloud.rpc.formats import timestamp
from wavelift.localcloud.rpc.parameters import Parameters
from wavelift.localcloud.states import ImageStatus

DEVICES = frozenset(f"/dev/xvd{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")
ARCHITECTURES = frozenset({"x86_64", "i386"})


@action("CreateImage")
def create_image(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    mode = p.choice("BootMode", frozenset({"BIOS", "UEFI", "UEFI-Preferred"}))
    if mode not in {None, "BIOS"}:
        raise ApiError("InvalidParameter.BootMode", f"This cloud boots BIOS images only, not {mode} ones.")
    order = ImageOrder(
        name=p.text("ImageName") or "",
        description=p.text("Description") or "",
        tags=p.tags(),
        architecture=p.choice("Architecture", ARCHITECTURES) or "x86_64",
        platform=p.text("Platform") or "Others Linux",
        instance=p.text("InstanceId"),
        mappings=[_mapping(entry) for entry in p.structures("DiskDeviceMapping")],
        snapshot=p.text("SnapshotId"),
        dry_run=p.flag("DryRun"),
    )
    return {"ImageId": cloud.images.create(order, p.token("CreateImage", "IdempotenceParamNotMatch"))}


def _mapping(p: Parameters) -> Mapping:
    device = p.text("Device")
    if device is not None:
        device = device if device.startswith("/dev/") else f"/dev/{device}"
        if device not in DEVICES:
            raise invalid("DiskDeviceMapping.Device", "Devices are /dev/xvda to /dev/xvdz.")
    kind = p.choice("DiskType", frozenset({"system", "data"}))
    return Mapping(
        snapshot=p.required("SnapshotId"),
        device=device,
        type=cast("DiskType | None", kind),
        size=p.integer("Size", 1),
    )


@action("DeleteImage")
def delete_image(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    if p.flag("DryRun"):
        raise dry_run_passed()
    cloud.images.delete(p.required("ImageId"), p.flag("Force"))
    return {}


@action("DescribeImages")
def describe_images(cloud: Cloud, p: Parameters) -> Reply:
    """Shows images that are Available, unless others are asked for by name."""
    check_region(p.required("RegionId"))
    ids = wanted.split(",") if (wanted := p.text("ImageId")) else None
    statuses = (p.text("Status") or ImageStatus.AVAILABLE.value).split(",")
    name, owner, snapshot, tags = p.text("ImageName"), p.text("ImageOwnerAlias"), p.text("SnapshotId"), p.wanted_tags()
    images = [
        image
        for image in cloud.images.all()
        if (ids is None or image.id in ids)
        and image.status.value in statuses
        and (name is None or fnmatchcase(image.name, name))
        and owner in {None, image.owner}
        and (snapshot is None or any(device.snapshot == snapshot for device in image.devices))
        and matches(image.tags, tags)
    ]
    found, fields = page(p, images)
    return {**fields, "RegionId": REGION, "Images": {"Image": [_describe(image) for image in found]}}


def _describe(image: Image) -> dict[str, Any]:
    progress = "100%" if image.status is ImageStatus.AVAILABLE else "0%"
    devices = [
        {
            "Device": device.device,
            "Type": device.type,
            "SnapshotId": device.snapshot,
            "Size": str(device.size),
            "Progress": progress,
        }
        for device in image.devices
    ]
    return {
        "ImageId": image.id,
        "ImageName": image.name,
        "Description": image.description,
        "ImageOwnerAlias": image.owner,
        "Status": image.status.value,
        "Progress": progress,
        "Usable": image.status is ImageStatus.AVAILABLE,
        "Architecture": image.architecture,
        "Platform": image.platform,
        "OSName": image.platform,
        "OSType": "windows" if image.platform.startswith("Windows") else "linux",
        "BootMode": "BIOS",
        "Size": image.system.size if image.system else 0,
        "DiskDeviceMappings": {"DiskDeviceMapping": devices},
        "IsSupportIoOptimized": True,
        "IsSupportCloudinit": False,
        "CreationTime": timestamp(image.created),
        "Tags": tag_list(image.tags),
    }
