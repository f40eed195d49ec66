import re
from fnmatch import fnmatchcase
from typing import Any, cast

from wavelift.localcloud.accounts import ACCOUNT
from wavelift.localcloud.actions import fields
from wavelift.localcloud.actions.paging import page_by_number, tag_list
from wavelift.localcloud.actions.progress import progress, remaining
from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.entities import INSTANCE_TYPES, REGION, DiskType, Image
from wavelift.localcloud.errors import ApiError, invalid
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.model.image_changes import READY, ImageAttributes
from wavelift.localcloud.model.images import About, ImageOrder, Mapping
from wavelift.localcloud.model.tags import matches
from wavelift.localcloud.rpc.formats import timestamp
from wavelift.localcloud.rpc.parameters import Parameters
from wavelift.localcloud.states import ImageStatus

DEVICES = frozenset(f"/dev/xvd{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")
ARCHITECTURES = frozenset({"x86_64", "i386"})
BOOT_MODES = frozenset({"BIOS", "UEFI", "UEFI-Preferred"})
LINUX = "Others Linux"
PLATFORMS = frozenset(
    {
        *("Aliyun", "Anolis", "CentOS", "Ubuntu", "CoreOS", "SUSE", "Debian", "OpenSUSE", "FreeBSD", "RedHat"),
        *("Kylin", "UOS", "Fedora", "Fedora CoreOS", "CentOS Stream", "AlmaLinux", "Rocky Linux", "Gentoo"),
        *("Customized Linux", LINUX, "Other Windows"),
        *(f"Windows Server {year}" for year in (2003, 2008, 2012, 2016, 2019, 2022)),
    }
)
RESERVED = ("aliyun", "acs:")
SHARED_AT_ONCE = 10
_ACCOUNT = re.compile(r"[0-9]{10,19}")


def one_of(p: Parameters, field: str, choices: frozenset[str]) -> str | None:
    """As images have it: the code is the field's own."""
    value = p.text(field)
    if value is not None and value not in choices:
        raise ApiError(f"Invalid{field}.Malformed", f'The specified parameter "{field}" is not valid.')
    return value


def about(p: Parameters) -> About:
    """What the actions that make an image are told of it."""
    fields.no_resource_group(p)
    p.choice("DetectionStrategy", frozenset({"Standard"}))
    features = p.structure("Features")
    return About(
        name=fields.name(p, "ImageName", RESERVED) or "",
        description=fields.description(p) or "",
        tags=p.tags(),
        architecture=one_of(p, "Architecture", ARCHITECTURES) or "x86_64",
        platform=one_of(p, "Platform", PLATFORMS) or LINUX,
        boot_mode=one_of(p, "BootMode", BOOT_MODES) or "BIOS",
        family=fields.name(p, "ImageFamily", RESERVED) or "",
        version=p.text("ImageVersion") or "",
        nvme=features.choice("NvmeSupport", frozenset({"supported", "unsupported"})) == "supported",
        imds=features.choice("ImdsSupport", frozenset({"v1", "v2"})) or "v1",
    )


@action("CreateImage")
def create_image(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    if p.structure("SecureBootOptions").text("SecureBootSupport") == "supported":
        raise invalid("SecureBootOptions.SecureBootSupport", "Machines of this cloud boot without it.")
    order = ImageOrder(
        about=about(p),
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
        snapshot=p.text("SnapshotId"),
        device=device,
        type=cast("DiskType | None", kind),
        size=p.integer("Size", 1),
    )


@action("CopyImage")
def copy_image(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    check_region(p.text("DestinationRegionId"))
    fields.not_encrypted(p)
    fields.no_resource_group(p)
    said = About(
        name=fields.name(p, "DestinationImageName", RESERVED) or "",
        description=fields.description(p, "DestinationDescription") or "",
        tags=p.tags(),
    )
    copy = cloud.image_changes.duplicate(p.required("ImageId"), said, p.flag("DryRun"), p.token("CopyImage"))
    return {"ImageId": copy}


@action("CancelCopyImage")
def cancel_copy_image(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    cloud.image_changes.cancel_copy(p.required("ImageId"))
    return {}


@action("ModifyImageAttribute")
def modify_image_attribute(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    features = p.structure("Features")
    nvme = features.choice("NvmeSupport", frozenset({"supported", "unsupported"}))
    status = p.choice("Status", frozenset(status.value for status in READY))
    change = ImageAttributes(
        name=fields.name(p, "ImageName", RESERVED),
        description=fields.description(p),
        family=fields.name(p, "ImageFamily", RESERVED),
        boot_mode=one_of(p, "BootMode", BOOT_MODES),
        license=p.choice("LicenseType", frozenset({"BYOL"})),
        nvme=None if nvme is None else nvme == "supported",
        imds=features.choice("ImdsSupport", frozenset({"v1", "v2"})),
        status=None if status is None else ImageStatus(status),
    )
    cloud.image_changes.modify(p.required("ImageId"), change, p.flag("DryRun"))
    return {}


@action("ModifyImageSharePermission")
def modify_image_share_permission(cloud: Cloud, p: Parameters) -> Reply:
    """Beyond ten accounts a request says nothing, as with ECS."""
    check_region(p.required("RegionId"))
    fields.unsupported(p, "LaunchPermission")
    if p.flag("IsPublic"):
        raise invalid("IsPublic", "This cloud has no community images.")
    add, remove = (p.repeated(name)[:SHARED_AT_ONCE] for name in ("AddAccount", "RemoveAccount"))
    for account in (*add, *remove):
        if not _ACCOUNT.fullmatch(account):
            raise ApiError("InvalidAccount.NotFound", f"The specified account {account!r} does not exist.")
    cloud.image_changes.share(p.required("ImageId"), add, remove, p.flag("DryRun"))
    return {}


@action("DescribeImageSharePermission")
def describe_image_share_permission(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    image = cloud.image_changes.get(p.required("ImageId"))
    accounts = [{"AliyunId": account, "SharedTime": timestamp(t)} for account, t in image.shared_with.items()]
    found, paging = page_by_number(p, accounts)
    return {
        **paging,
        "RegionId": REGION,
        "ImageId": image.id,
        "Accounts": {"Account": list(found)},
        "ShareGroups": {"ShareGroup": []},
    }


@action("DeleteImage")
def delete_image(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    cloud.images.delete(p.required("ImageId"), p.flag("Force"), p.flag("DryRun"))
    return {}


@action("DescribeImageFromFamily")
def describe_image_from_family(cloud: Cloud, p: Parameters) -> Reply:
    """The newest; nothing when the family has none."""
    check_region(p.required("RegionId"))
    family = p.required("ImageFamily")
    members = [i for i in cloud.images.all() if i.family == family and i.status is ImageStatus.AVAILABLE]
    if not members:
        return {"Image": {}}
    newest = max(members, key=lambda image: image.created)
    return {"Image": _describe(newest, newest.id in cloud.images.in_use())}


@action("DescribeImages")
def describe_images(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    used = cloud.images.in_use()
    found, paging = page_by_number(p, fields.created_within(p, _matching(cloud, p, used)))
    fields.dry_run(p)
    images = [_describe(image, image.id in used) for image in found]
    return {**paging, "RegionId": REGION, "Images": {"Image": images}}


def _matching(cloud: Cloud, p: Parameters, used: set[str]) -> list[Image]:
    """Images that are Available, unless others are asked for by name."""
    ids = wanted.split(",") if (wanted := p.text("ImageId")) else None
    statuses = set((p.text("Status") or ImageStatus.AVAILABLE.value).split(","))
    name, snapshot, tags = p.text("ImageName"), p.text("SnapshotId"), p.wanted_tags()
    usage = p.choice("Usage", frozenset({"instance", "none"}))
    system, usable = p.choice("OSType", frozenset({"windows", "linux"})), fields.either(p, "Usable")
    exact = {
        "owner": p.choice("ImageOwnerAlias", frozenset({"self", "system", "others", "marketplace"})),
        "architecture": p.choice("Architecture", ARCHITECTURES | {"arm64"}),
        "family": p.text("ImageFamily"),
    }
    same = {field: value for field, value in exact.items() if value is not None}
    if not _shared(p):
        return []
    return [
        image
        for image in cloud.images.all()
        if (ids is None or image.id in ids)
        and (statuses == {"ALL"} or image.status.value in statuses)
        and (name is None or fnmatchcase(image.name, name))
        and all(getattr(image, field) == value for field, value in same.items())
        and (snapshot is None or any(device.snapshot == snapshot for device in image.devices))
        and usage in {None, "instance" if image.id in used else "none"}
        and system in {None, _system(image)}
        and usable in {None, image.status in READY}
        and matches(image.tags, tags)
    ]


def _shared(p: Parameters) -> bool:
    """May an image of this cloud be meant at all?"""
    p.choice("ActionType", frozenset({"CreateEcs", "ChangeOS"}))
    kind = p.text("InstanceType")
    return (
        p.text("ResourceGroupId") is None
        and not p.flag("IsPublic")
        and not p.flag("IsSupportCloudinit")
        and p.flag("IsSupportIoOptimized", True)
        and (kind is None or kind in INSTANCE_TYPES)
    )


def _system(image: Image) -> str:
    return "windows" if "Windows" in image.platform else "linux"


def _describe(image: Image, used: bool) -> dict[str, Any]:
    ready = image.status in READY
    devices = [
        {
            "Device": device.device,
            "Type": device.type,
            "SnapshotId": device.snapshot,
            "Size": str(device.size),
            "Format": device.format,
            "ImportOSSBucket": device.bucket,
            "ImportOSSObject": device.object,
            "Encrypted": False,
            "Progress": progress(image, ready),
            "RemainTime": remaining(image),
        }
        for device in image.devices
    ]
    return {
        "ImageId": image.id,
        "ImageName": image.name,
        "ImageFamily": image.family,
        "ImageVersion": image.version,
        "Description": image.description,
        "ImageOwnerAlias": image.owner,
        "ImageOwnerId": int(ACCOUNT) if image.owner == "self" else 0,
        "Status": image.status.value,
        "Progress": progress(image, ready),
        "Usable": ready,
        "Usage": "instance" if used else "none",
        "Architecture": image.architecture,
        "Platform": image.platform,
        "OSName": image.platform,
        "OSNameEn": image.platform,
        "OSType": _system(image),
        "BootMode": image.boot_mode,
        "LicenseType": image.license,
        "Features": {
            "NvmeSupport": "supported" if image.nvme else "unsupported",
            "ImdsSupport": image.imds,
        },
        "Size": image.system.size if image.system else 0,
        "DiskDeviceMappings": {"DiskDeviceMapping": devices},
        "IsCopied": bool(image.source_image),
        "IsPublic": False,
        "IsSelfShared": str(bool(image.shared_with)),
        "IsSubscribed": False,
        "IsSupportIoOptimized": True,
        "IsSupportCloudinit": False,
        "ProductCode": "",
        "ResourceGroupId": "",
        "CreationTime": timestamp(image.created),
        "Tags": tag_list(image.tags),
    }
