import base64
import binascii
from typing import Any

from wavelift.localcloud.actions.paging import page, tag_list
from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.entities import INSTANCE_TYPES, REGION, VPC, Instance
from wavelift.localcloud.errors import ApiError, forbidden, invalid
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.model.orders import InstanceOrder, OrderedDisk
from wavelift.localcloud.model.tags import matches
from wavelift.localcloud.rpc.parameters import Parameters
from wavelift.localcloud.rpc.wire import timestamp

USER_DATA_LIMIT = 32 * 1024


@action("RunInstances")
def run_instances(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    if p.integer("Amount", 1, 100) not in {None, 1}:
        raise invalid("Amount", "This cloud runs one instance per request.")
    order = InstanceOrder(
        image=p.required("ImageId"),
        type=p.required("InstanceType"),
        vswitch=p.text("VSwitchId"),
        zone=p.text("ZoneId"),
        groups=p.repeated("SecurityGroupIds") or ([group] if (group := p.text("SecurityGroupId")) else []),
        name=p.text("InstanceName") or "",
        host_name=p.text("HostName") or "",
        description=p.text("Description") or "",
        tags=p.tags(),
        user_data=_user_data(p),
        bandwidth=p.integer("InternetMaxBandwidthOut", 0, 100) or 0,
        system_disk=_disk(p.structure("SystemDisk")),
        data_disks=[_disk(entry) for entry in p.structures("DataDisk")],
        dry_run=p.flag("DryRun"),
    )
    instance = cloud.instances.run(order, p.token("RunInstances"))
    return {"InstanceIdSets": {"InstanceIdSet": [instance]}}


def _user_data(p: Parameters) -> str:
    text = p.text("UserData")
    if text is None:
        return ""
    try:
        data = base64.b64decode(text, validate=True)
        if len(data) > USER_DATA_LIMIT:
            raise forbidden("InvalidUserData.SizeExceeded", f"User data has at most {USER_DATA_LIMIT} bytes.")
        return data.decode()
    except (binascii.Error, UnicodeDecodeError):
        raise ApiError("InvalidUserData.Base64FormatInvalid", "The specified UserData is not text in Base64.") from None


def _disk(p: Parameters) -> OrderedDisk:
    return OrderedDisk(
        category=p.text("Category"),
        level=p.text("PerformanceLevel"),
        size=p.integer("Size", 1),
        snapshot=p.text("SnapshotId"),
        device=p.text("Device"),
        name=p.text("DiskName") or "",
        description=p.text("Description") or "",
        delete_with_instance=p.flag("DeleteWithInstance", True),
    )


@action("StartInstance")
def start_instance(cloud: Cloud, p: Parameters) -> Reply:
    cloud.instances.start(p.required("InstanceId"), p.flag("DryRun"))
    return {}


@action("StopInstance")
def stop_instance(cloud: Cloud, p: Parameters) -> Reply:
    cloud.instances.stop(p.required("InstanceId"), p.flag("ForceStop"), p.flag("DryRun"))
    return {}


@action("RebootInstance")
def reboot_instance(cloud: Cloud, p: Parameters) -> Reply:
    cloud.instances.reboot(p.required("InstanceId"), p.flag("ForceStop"), p.flag("DryRun"))
    return {}


@action("DeleteInstance")
def delete_instance(cloud: Cloud, p: Parameters) -> Reply:
    cloud.instances.delete(p.required("InstanceId"), p.flag("Force"), p.flag("DryRun"))
    return {}


@action("GetInstanceScreenshot")
def get_instance_screenshot(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    identifier = p.required("InstanceId")
    picture = cloud.instances.screenshot(identifier)
    return {"InstanceId": identifier, "Screenshot": base64.b64encode(picture).decode()}


@action("GetInstanceConsoleOutput")
def get_instance_console_output(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    identifier = p.required("InstanceId")
    output, changed = cloud.instances.console(identifier)
    return {
        "InstanceId": identifier,
        "ConsoleOutput": base64.b64encode(output).decode(),
        "LastUpdateTime": timestamp(changed),
    }


@action("DescribeInstances")
def describe_instances(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    found, fields = page(p, _matching(cloud, p))
    return {**fields, "Instances": {"Instance": [_describe(instance) for instance in found]}}


def _matching(cloud: Cloud, p: Parameters) -> list[Instance]:
    ids, tags = p.json_list("InstanceIds"), p.wanted_tags()
    status, group, vpc = p.text("Status"), p.text("SecurityGroupId"), p.text("VpcId")
    private, public = p.json_list("PrivateIpAddresses"), p.json_list("PublicIpAddresses")
    exact = {
        "name": p.text("InstanceName"),
        "image": p.text("ImageId"),
        "type": p.text("InstanceType"),
        "zone": p.text("ZoneId"),
        "vswitch": p.text("VSwitchId"),
    }
    return [
        instance
        for instance in cloud.instances.all()
        if (ids is None or instance.id in ids)
        and status in {None, instance.status.value}
        and (group is None or group in instance.groups)
        and vpc in {None, VPC}
        and (private is None or instance.address in private)
        and (public is None or (instance.bandwidth > 0 and instance.address in public))
        and all(value in {None, getattr(instance, name)} for name, value in exact.items())
        and matches(instance.tags, tags)
    ]


@action("DescribeInstanceStatus")
def describe_instance_status(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    ids, zone = p.repeated("InstanceId"), p.text("ZoneId")
    instances = [i for i in cloud.instances.all() if (not ids or i.id in ids) and zone in {None, i.zone}]
    found, fields = page(p, instances)
    statuses = [{"InstanceId": instance.id, "Status": instance.status.value} for instance in found]
    return {**fields, "InstanceStatuses": {"InstanceStatus": statuses}}


def _describe(instance: Instance) -> dict[str, Any]:
    kind = INSTANCE_TYPES[instance.type]
    return {
        "InstanceId": instance.id,
        "InstanceName": instance.name,
        "HostName": instance.host_name,
        "Description": instance.description,
        "RegionId": REGION,
        "ZoneId": instance.zone,
        "Status": instance.status.value,
        "ImageId": instance.image,
        "InstanceType": kind.id,
        "InstanceTypeFamily": kind.family,
        "Cpu": kind.cores,
        "Memory": kind.memory * 1024,
        "InstanceNetworkType": "vpc",
        "InstanceChargeType": "PostPaid",
        "InternetChargeType": "PayByTraffic",
        "InternetMaxBandwidthOut": instance.bandwidth,
        "IoOptimized": True,
        "PublicIpAddress": {"IpAddress": [instance.address] if instance.bandwidth else []},
        "InnerIpAddress": {"IpAddress": []},
        "VpcAttributes": {
            "VpcId": VPC,
            "VSwitchId": instance.vswitch,
            "PrivateIpAddress": {"IpAddress": [instance.address]},
            "NatIpAddress": "",
        },
        "NetworkInterfaces": {
            "NetworkInterface": [
                {
                    "MacAddress": instance.mac,
                    "PrimaryIpAddress": instance.address,
                    "NetworkInterfaceId": instance.id.replace("i-", "eni-", 1),
                    "Type": "Primary",
                }
            ]
        },
        "SecurityGroupIds": {"SecurityGroupId": instance.groups},
        "CreationTime": timestamp(instance.created),
        "StartTime": timestamp(instance.started_at),
        "Tags": tag_list(instance.tags),
    }
