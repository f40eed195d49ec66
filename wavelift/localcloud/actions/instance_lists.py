"""Looking at instances; `instances` changes them."""

import fnmatch
from typing import Any

from wavelift.localcloud.actions import fields
from wavelift.localcloud.actions.paging import page, tag_list
from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.entities import INSTANCE_TYPES, REGION, VPC, Instance
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.model.tags import matches
from wavelift.localcloud.rpc.formats import timestamp
from wavelift.localcloud.rpc.parameters import Parameters

# Filters whose value every instance of this cloud has, or none.
FIXED = {
    "InstanceChargeType": "PostPaid",
    "InternetChargeType": "PayByTraffic",
    "InstanceNetworkType": "vpc",
    "IoOptimized": "true",
    "VpcId": VPC,
}


@action("DescribeInstances")
def describe_instances(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    found = fields.created_within(p, _matching(cloud, p))
    fields.dry_run(p)
    shown, about = page(p, found)
    return {**about, "Instances": {"Instance": [_describe(instance) for instance in shown]}}


def _matching(cloud: Cloud, p: Parameters) -> list[Instance]:
    if any((p.text(name) or value).lower() != value.lower() for name, value in FIXED.items()):
        return []
    # Nothing is ever locked, nothing is in another group or cluster, and nothing has addresses of other kinds.
    if any(p.text(field) is not None for field in ("LockReason", "ResourceGroupId", "HpcClusterId")):
        return []
    if p.repeated("Ipv6Address") or any(p.json_list(f"{kind}Addresses") for kind in ("Eip", "InnerIp", "RdmaIp")):
        return []
    ids, tags = p.json_list("InstanceIds"), p.wanted_tags()
    name, group = p.text("InstanceName"), p.text("SecurityGroupId")
    private, public = p.json_list("PrivateIpAddresses"), p.json_list("PublicIpAddresses")
    family, status = p.text("InstanceTypeFamily"), p.text("Status")
    exact = {
        "image": p.text("ImageId"),
        "type": p.text("InstanceType"),
        "zone": p.text("ZoneId"),
        "vswitch": p.text("VSwitchId"),
        "key_pair": p.text("KeyPairName"),
    }
    return [
        instance
        for instance in cloud.instances.all()
        if (ids is None or instance.id in ids)
        and status in {None, instance.status.value}
        and (name is None or fnmatch.fnmatchcase(instance.name, name.replace("[", "[[]").replace("?", "[?]")))
        and (group is None or group in instance.groups)
        and family in {None, INSTANCE_TYPES[instance.type].family}
        and (private is None or instance.private_address in private)
        and (public is None or instance.public_address in public)
        and all(value in {None, getattr(instance, field)} for field, value in exact.items())
        and matches(instance.tags, tags)
    ]


@action("DescribeInstanceStatus")
def describe_instance_status(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    ids, zone = p.repeated("InstanceId"), p.text("ZoneId")
    instances = [i for i in cloud.instances.all() if (not ids or i.id in ids) and zone in {None, i.zone}]
    found, about = page(p, instances)
    statuses = [{"InstanceId": instance.id, "Status": instance.status.value} for instance in found]
    return {**about, "InstanceStatuses": {"InstanceStatus": statuses}}


@action("DescribeInstanceAttribute")
def describe_instance_attribute(cloud: Cloud, p: Parameters) -> Reply:
    return _attributes(cloud.instances.get(p.required("InstanceId")))


def _attributes(instance: Instance) -> dict[str, Any]:
    """What both ways to look at an instance tell."""
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
        "Cpu": kind.cores,
        "Memory": kind.memory * 1024,
        "InstanceNetworkType": "vpc",
        "InstanceChargeType": "PostPaid",
        "InternetChargeType": "PayByTraffic",
        "InternetMaxBandwidthOut": instance.bandwidth,
        "IoOptimized": True,
        "PublicIpAddress": {"IpAddress": [address] if (address := instance.public_address) else []},
        "InnerIpAddress": {"IpAddress": []},
        "VpcAttributes": {
            "VpcId": VPC,
            "VSwitchId": instance.vswitch,
            "PrivateIpAddress": {"IpAddress": [instance.private_address]},
            "NatIpAddress": "",
        },
        "SecurityGroupIds": {"SecurityGroupId": instance.groups},
        "CreationTime": timestamp(instance.created),
    }


def _describe(instance: Instance) -> dict[str, Any]:
    return _attributes(instance) | {
        "InstanceTypeFamily": INSTANCE_TYPES[instance.type].family,
        "KeyPairName": instance.key_pair,
        "OSType": "linux",
        "NetworkInterfaces": {
            "NetworkInterface": [
                {
                    "MacAddress": instance.mac,
                    "PrimaryIpAddress": instance.private_address,
                    "NetworkInterfaceId": instance.id.replace("i-", "eni-", 1),
                    "Type": "Primary",
                }
            ]
        },
        "StartTime": timestamp(instance.started_at),
        "Tags": tag_list(instance.tags),
    }
