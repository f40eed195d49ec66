import re

from wavelift.localcloud.actions import fields
from wavelift.localcloud.actions.images import DEVICES, LINUX, about, one_of
from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.entities import REGION
from wavelift.localcloud.errors import ApiError, missing
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.model.exports import ExportOrder
from wavelift.localcloud.model.formats import malformed
from wavelift.localcloud.model.images import About
from wavelift.localcloud.model.imports import ImportOrder, Source
from wavelift.localcloud.rpc.parameters import Parameters

IMPORTED = frozenset({"RAW", "QCOW2", "VHD"})
EXPORTED = frozenset({"RAW", "QCOW2", "VHD", "VMDK", "VDI"})
_PREFIX = re.compile(r"[A-Za-z0-9]{1,30}")


@action("ImportImage")
def import_image(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    fields.unsupported(p, "StorageLocationArn")
    if p.text("BootMode") == "UEFI-Preferred":
        raise ApiError("InvalidBootMode.Malformed", 'The specified parameter "BootMode" is malformed.')
    order = ImportOrder(
        about=_about(p),
        sources=[_source(entry) for entry in p.structures("DiskDeviceMapping")],
        dry_run=p.flag("DryRun"),
    )
    image, task = cloud.imports.order(order, p.token("ImportImage"))
    return {"ImageId": image, "TaskId": task, "RegionId": REGION}


def _about(p: Parameters) -> About:
    said = about(p)
    windows = one_of(p, "OSType", frozenset({"linux", "windows"})) == "windows"
    platform = "Other Windows" if windows and said.platform == LINUX else said.platform
    kind = p.text("LicenseType")
    if kind not in {None, "Auto", "Aliyun", "BYOL"}:
        raise ApiError("InvalidLicenseType.NotSupported", "The specified LicenseType is not supported.")
    return About(**{**vars(said), "platform": platform, "license": kind or ""})


def _source(p: Parameters) -> Source:
    bucket, key = p.text("OSSBucket"), p.text("OSSObject")
    if bucket is None or key is None:
        raise missing("DiskDeviceMapping.OSSBucket" if bucket is None else "DiskDeviceMapping.OSSObject")
    kind, device = p.text("Format"), p.text("Device")
    if kind is not None and kind.upper() not in IMPORTED:
        raise _malformed(kind)
    if device is not None and device not in DEVICES:
        raise ApiError("InvalidParameter.Malformed", 'The specified "DiskDeviceMapping.n.Device" is not valid.')
    # The model says what sizes there are: the codes for system and data disks differ.
    size = p.integer("DiskImageSize") if p.text("DiskImageSize") is not None else p.integer("DiskImSize")
    return Source(bucket, key, kind.upper() if kind else None, size, device)


@action("ExportImage")
def export_image(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    prefix, kind = p.text("OSSPrefix"), p.text("ImageFormat") or "raw"
    if prefix is not None and not _PREFIX.fullmatch(prefix):
        raise ApiError("InvalidOSSPrefix.Malformed", "The specified OSSPrefix format is wrongly formed.")
    if kind.upper() not in EXPORTED:
        raise _malformed(kind)
    order = ExportOrder(
        image=p.required("ImageId"),
        bucket=p.required("OSSBucket"),
        prefix=prefix or "",
        format=kind.upper(),
        dry_run=p.flag("DryRun"),
    )
    return {"TaskId": cloud.exports.order(order), "RegionId": REGION}


def _malformed(kind: str) -> ApiError:
    error = malformed(f"The format {kind!r} is not supported.")
    return ApiError(error.code, error.message)
