import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from wavelift.localcloud.actions import fields
from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.errors import ApiError, invalid, missing
from wavelift.localcloud.model.attributes import Changes
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.model.instances import Moved
from wavelift.localcloud.model.orders import InstanceOrder, OrderedDisk
from wavelift.localcloud.rpc.parameters import Parameters

USER_DATA_LIMIT = 32 * 1024
MOST = 100
BATCHES = frozenset({"AllTogether", "SuccessFirst"})
CONSOLE_TIME_ZONE = timedelta(hours=8)
# What would only show on the bill is refused too: an order that is accepted is the instance that one then sees.
NOT_ORDERED = (
    "AutoReleaseTime",
    "CpuOptions.Core",
    "CpuOptions.ThreadsPerCore",
    "DedicatedHostId",
    "DeploymentSetGroupNo",
    "DeploymentSetId",
    "HpcClusterId",
    "ImageFamily",
    "Ipv6AddressCount",
    "LaunchTemplateId",
    "LaunchTemplateName",
    "LaunchTemplateVersion",
    "ManagedHostId",
    "PrivatePoolOptions.Id",
    "RamRoleName",
    "SchedulerOptions.DedicatedHostClusterId",
    "SecurityOptions.ConfidentialComputingMode",
    "SecurityOptions.TrustedSystemMode",
    "StorageSetId",
)
AS_ORDERED = {
    "DeletionProtection": "false",
    "HibernationOptions.Configured": "false",
    "HttpEndpoint": "enabled",
    "HttpTokens": "optional",
    "InstanceChargeType": "PostPaid",
    "InternetChargeType": "PayByTraffic",
    "IoOptimized": "optimized",
    "SecurityOptions.EnableSecureBoot": "false",
    "SpotStrategy": "NoSpot",
    "Tenancy": "default",
}

AS_STOPPED = {"Hibernate": "false", "StoppedMode": "StopCharging"}


@action("RunInstances")
def run_instances(cloud: Cloud, p: Parameters) -> Reply:
    amount, least = p.integer("Amount", 1, MOST) or 1, p.integer("MinAmount", 1, MOST)
    if least is not None and least > amount:
        raise ApiError("InvalidParameter.MinAmount", "MinAmount is at most Amount.")
    instances = cloud.instances.run(_order(p, amount=amount, least=least), p.token("RunInstances"))
    return {"InstanceIdSets": {"InstanceIdSet": instances}}


@action("CreateInstance")
def create_instance(cloud: Cloud, p: Parameters) -> Reply:
    (instance,) = cloud.instances.run(_order(p, starts=False), p.token("CreateInstance"))
    return {"InstanceId": instance}


def _order(p: Parameters, amount: int = 1, least: int | None = None, starts: bool = True) -> InstanceOrder:
    check_region(p.required("RegionId"))
    fields.unsupported(p, *NOT_ORDERED)
    fields.only(p, AS_ORDERED)
    fields.no_resource_group(p)
    for field in ("HostNames", "Ipv6Address"):
        if p.repeated(field):
            raise invalid(field, "This cloud does not support it.")
    if p.structures("NetworkInterface"):
        raise invalid("NetworkInterface", "An instance has one interface, which it gets by itself.")
    fields.password(p)
    group, groups = p.text("SecurityGroupId"), p.repeated("SecurityGroupIds")
    if group and groups:
        raise ApiError("InvalidParameter.Conflict", "SecurityGroupId and SecurityGroupIds exclude each other.")
    return InstanceOrder(
        image=p.required("ImageId"),
        type=p.required("InstanceType"),
        vswitch=p.text("VSwitchId"),
        zone=p.text("ZoneId"),
        groups=groups or ([group] if group else []),
        amount=amount,
        least=least,
        starts=starts,
        name=p.text("InstanceName") or "",
        host_name=p.text("HostName") or "",
        unique_suffix=p.flag("UniqueSuffix"),
        description=fields.description(p) or "",
        tags=p.tags(),
        user_data=_user_data(p) or "",
        key_pair=p.text("KeyPairName") or "",
        private_address=p.text("PrivateIpAddress"),
        bandwidth=p.integer("InternetMaxBandwidthOut", 0, 100) or 0,
        system_disk=_disk(p.structure("SystemDisk")),
        data_disks=[_disk(entry) for entry in p.structures("DataDisk")],
        dry_run=p.flag("DryRun"),
    )


def _user_data(p: Parameters) -> str | None:
    text = p.text("UserData")
    if text is None:
        return None
    try:
        data = base64.b64decode(text, validate=True)
        if len(data) > USER_DATA_LIMIT:
            raise ApiError("InvalidUserData.SizeExceeded", f"User data has at most {USER_DATA_LIMIT} bytes.")
        return data.decode()
    except (binascii.Error, UnicodeDecodeError):
        raise ApiError("InvalidUserData.Base64FormatInvalid", "The specified UserData is not text in Base64.") from None


def _disk(p: Parameters) -> OrderedDisk:
    fields.not_encrypted(p)
    fields.unsupported(p, "AutoSnapshotPolicyId", "ProvisionedIops", "StorageClusterId")
    fields.only(p, {"BurstingEnabled": "false"})
    return OrderedDisk(
        category=p.text("Category"),
        level=p.text("PerformanceLevel"),
        size=p.integer("Size", 1),
        snapshot=p.text("SnapshotId"),
        device=fields.device(p),
        name=fields.name(p, "DiskName") or "",
        description=fields.description(p) or "",
        delete_with_instance=p.flag("DeleteWithInstance", True),
    )


@action("StartInstance")
def start_instance(cloud: Cloud, p: Parameters) -> Reply:
    cloud.instances.start([p.required("InstanceId")], p.flag("DryRun"))
    return {}


@action("StopInstance")
def stop_instance(cloud: Cloud, p: Parameters) -> Reply:
    fields.only(p, AS_STOPPED)
    cloud.instances.stop([p.required("InstanceId")], p.flag("ForceStop"), p.flag("DryRun"))
    return {}


@action("RebootInstance")
def reboot_instance(cloud: Cloud, p: Parameters) -> Reply:
    cloud.instances.reboot([p.required("InstanceId")], p.flag("ForceStop"), p.flag("DryRun"))
    return {}


@action("DeleteInstance")
def delete_instance(cloud: Cloud, p: Parameters) -> Reply:
    cloud.instances.delete([p.required("InstanceId")], p.flag("Force"), p.flag("DryRun"))
    return {}


@action("StartInstances")
def start_instances(cloud: Cloud, p: Parameters) -> Reply:
    return _batch(p, lambda ids: cloud.instances.start(ids, p.flag("DryRun")))


@action("StopInstances")
def stop_instances(cloud: Cloud, p: Parameters) -> Reply:
    fields.only(p, AS_STOPPED)
    return _batch(p, lambda ids: cloud.instances.stop(ids, p.flag("ForceStop"), p.flag("DryRun")))


@action("RebootInstances")
def reboot_instances(cloud: Cloud, p: Parameters) -> Reply:
    # Its force is named otherwise than that of the one that stops.
    return _batch(p, lambda ids: cloud.instances.reboot(ids, p.flag("ForceReboot"), p.flag("DryRun")))


@action("DeleteInstances")
def delete_instances(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    cloud.instances.delete(_ids(p), p.flag("Force"), p.flag("DryRun"), p.token("DeleteInstances"))
    return {}


def _ids(p: Parameters) -> list[str]:
    ids = list(dict.fromkeys(p.repeated("InstanceId")))
    if not ids:
        raise missing("InstanceId")
    if len(ids) > MOST:
        raise ApiError("InstanceIds.ExceedLimit", f"A request names at most {MOST} instances.")
    return ids


def _batch(p: Parameters, move: Callable[[Sequence[str]], list[Moved]]) -> Reply:
    check_region(p.required("RegionId"))
    ids = _ids(p)
    if p.choice("BatchOptimization", BATCHES) != "SuccessFirst":
        answers = [_moved(each) for each in move(ids)]
    else:
        answers = [_moved_alone(each, move) for each in ids]
    return {"InstanceResponses": {"InstanceResponse": answers}}


def _moved(moved: Moved) -> dict[str, str]:
    return {
        "InstanceId": moved.instance,
        "PreviousStatus": moved.before.value,
        "CurrentStatus": moved.after.value,
        "Code": "200",
        "Message": "success",
    }


def _moved_alone(identifier: str, move: Callable[[Sequence[str]], list[Moved]]) -> dict[str, str]:
    try:
        (moved,) = move([identifier])
    except ApiError as error:
        if error.code == "DryRunOperation":
            raise
        return {"InstanceId": identifier, "Code": error.code, "Message": error.message}
    return _moved(moved)


@action("ModifyInstanceAttribute")
def modify_instance_attribute(cloud: Cloud, p: Parameters) -> Reply:
    fields.unsupported(p, "DeletionProtection", "NetworkInterfaceQueueNumber", "EnableJumboFrame")
    if p.repeated("SecurityGroupIds"):
        raise ApiError("OperationDenied", "This cloud changes the groups of no instance that exists.")
    changes = Changes(
        name=fields.name(p, "InstanceName"),
        description=fields.description(p),
        host_name=p.text("HostName"),
        user_data=_user_data(p),
        password=fields.password(p) is not None,
    )
    cloud.attributes.modify(p.required("InstanceId"), changes)
    return {}


@action("ModifyInstanceSpec")
def modify_instance_spec(cloud: Cloud, p: Parameters) -> Reply:
    fields.unsupported(p, "SystemDisk.Category", "Temporary.InternetMaxBandwidthOut")
    if p.structures("Disk"):
        raise invalid("Disk", "ModifyDiskSpec changes disks.")
    bandwidth = p.integer("InternetMaxBandwidthOut", 0, 100)
    cloud.attributes.resize(p.required("InstanceId"), p.text("InstanceType"), bandwidth, p.flag("DryRun"))
    return {}


@action("AllocatePublicIpAddress")
def allocate_public_ip_address(cloud: Cloud, p: Parameters) -> Reply:
    fields.unsupported(p, "IpAddress", "VlanId")
    return {"IpAddress": cloud.attributes.allocate_address(p.required("InstanceId"))}


@action("ReplaceSystemDisk")
def replace_system_disk(cloud: Cloud, p: Parameters) -> Reply:
    fields.password(p)
    fields.not_encrypted(p)
    size = p.structure("SystemDisk").integer("Size", 1)
    image, token = p.required("ImageId"), p.token("ReplaceSystemDisk")
    return {"DiskId": cloud.attributes.replace_system_disk(p.required("InstanceId"), image, size, token)}


@action("GetInstanceScreenshot")
def get_instance_screenshot(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    identifier = p.required("InstanceId")
    picture = cloud.screens.screenshot(identifier, p.flag("WakeUp"))
    return {"InstanceId": identifier, "Screenshot": base64.b64encode(picture).decode()}


@action("GetInstanceConsoleOutput")
def get_instance_console_output(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    identifier = p.required("InstanceId")
    output, changed = cloud.screens.console(identifier, p.flag("RemoveSymbols"))
    # The one time that ECS tells in its own time zone.
    local = datetime.fromtimestamp(changed, UTC) + CONSOLE_TIME_ZONE
    return {
        "InstanceId": identifier,
        "ConsoleOutput": base64.b64encode(output).decode(),
        "LastUpdateTime": local.strftime("%Y-%m-%d %H:%M:%S") if changed else "",
    }
