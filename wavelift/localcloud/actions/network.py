import re

from wavelift.localcloud.actions.paging import page, tag_list
from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.entities import BLOCKS, REGION, VPC, VSWITCHES, Rule
from wavelift.localcloud.errors import ApiError, invalid, missing
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.model.tags import matches
from wavelift.localcloud.rpc.formats import timestamp
from wavelift.localcloud.rpc.parameters import Parameters

PROTOCOLS = frozenset({"TCP", "UDP", "ICMP", "ICMPv6", "GRE", "ALL"})


@action("DescribeVpcs")
def describe_vpcs(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    wanted = p.text("VpcId")
    vpc = {
        "VpcId": VPC,
        "VpcName": "local",
        "RegionId": REGION,
        "Status": "Available",
        "CidrBlock": "172.16.0.0/16",
        "IsDefault": True,
        "VSwitchIds": {"VSwitchId": list(VSWITCHES)},
    }
    found, fields = page(p, [vpc] if wanted is None or VPC in wanted.split(",") else [])
    return {**fields, "Vpcs": {"Vpc": list(found)}}


@action("DescribeVSwitches")
def describe_vswitches(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.text("RegionId"))
    vpc, zone, wanted = p.text("VpcId"), p.text("ZoneId"), p.text("VSwitchId")
    switches = [
        {
            "VSwitchId": name,
            "VSwitchName": name,
            "VpcId": VPC,
            "ZoneId": place,
            "Status": "Available",
            "CidrBlock": BLOCKS[name],
            "AvailableIpAddressCount": 252,
            "IsDefault": True,
        }
        for name, place in VSWITCHES.items()
        if vpc in {None, VPC} and zone in {None, place} and (wanted is None or name in wanted.split(","))
    ]
    found, fields = page(p, switches)
    return {**fields, "VSwitches": {"VSwitch": list(found)}}


@action("DescribeSecurityGroups")
def describe_security_groups(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    ids = p.json_list("SecurityGroupIds") or ([single] if (single := p.text("SecurityGroupId")) else None)
    name, vpc, tags = p.text("SecurityGroupName"), p.text("VpcId"), p.wanted_tags()
    groups = [
        group
        for group in cloud.network.groups()
        if (ids is None or group.id in ids)
        and name in {None, group.name}
        and vpc in {None, group.vpc}
        and matches(group.tags, tags)
    ]
    found, fields = page(p, groups)
    counts = cloud.network.users()
    described = [
        {
            "SecurityGroupId": group.id,
            "SecurityGroupName": group.name,
            "SecurityGroupType": "normal",
            "Description": group.description,
            "VpcId": group.vpc,
            "CreationTime": timestamp(group.created),
            "RuleCount": len(group.rules),
            "EcsCount": counts.get(group.id, 0),
            "Tags": tag_list(group.tags),
        }
        for group in found
    ]
    return {**fields, "RegionId": REGION, "SecurityGroups": {"SecurityGroup": described}}


@action("DescribeSecurityGroupAttribute")
def describe_security_group_attribute(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    group = cloud.network.group(p.required("SecurityGroupId"))
    direction = (p.text("Direction") or "all").lower()
    permissions = [
        {
            "Direction": "ingress",
            "IpProtocol": rule.protocol,
            "PortRange": rule.ports,
            "SourceCidrIp": rule.source,
            "Policy": rule.policy,
            "Priority": str(rule.priority),
            "NicType": "intranet",
            "Description": rule.description,
            "CreateTime": timestamp(rule.created),
        }
        for rule in group.rules
        if direction in {"all", "ingress"}
    ]
    return {
        "RegionId": REGION,
        "VpcId": group.vpc,
        "SecurityGroupId": group.id,
        "SecurityGroupName": group.name,
        "Description": group.description,
        "InnerAccessPolicy": "Accept",
        "Permissions": {"Permission": permissions},
    }


@action("CreateSecurityGroup")
def create_security_group(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    name, description = p.text("SecurityGroupName") or "", p.text("Description") or ""
    return {"SecurityGroupId": cloud.network.create_group(p.text("VpcId") or VPC, name, description, p.tags())}


@action("AuthorizeSecurityGroup")
def authorize_security_group(cloud: Cloud, p: Parameters) -> Reply:
    """Rules as a list, or one rule in the request's own fields."""
    check_region(p.required("RegionId"))
    rules = [_rule(entry) for entry in p.structures("Permissions")] or [_rule(p)]
    cloud.network.authorize(p.required("SecurityGroupId"), rules)
    return {}


def _rule(p: Parameters) -> Rule:
    protocol = p.required("IpProtocol").upper().replace("ICMPV6", "ICMPv6")
    if protocol not in PROTOCOLS:
        raise invalid("IpProtocol")
    ports = p.required("PortRange")
    match = re.fullmatch(r"(-?[0-9]{1,5})/(-?[0-9]{1,5})", ports)
    if match is None:
        raise invalid("PortRange", "A range is written first/last.")
    first, last = int(match[1]), int(match[2])
    if protocol in {"TCP", "UDP"}:
        if not 1 <= first <= last <= 65535:
            raise invalid("PortRange", "Ports are 1 to 65535.")
    elif (first, last) != (-1, -1):
        raise invalid("PortRange", f"It is -1/-1 for {protocol}.")
    source = p.text("SourceCidrIp") or p.text("SourceGroupId")
    if source is None:
        raise missing("SourceCidrIp")
    policy = (p.text("Policy") or "accept").capitalize()
    if policy not in {"Accept", "Drop"}:
        raise ApiError("InvalidPolicy.Malformed", "The policy is accept or drop.")
    return Rule(
        protocol=protocol,
        ports=ports,
        source=source,
        policy=policy,
        priority=p.integer("Priority", 1, 100) or 1,
        description=p.text("Description") or "",
    )


@action("DeleteSecurityGroup")
def delete_security_group(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    cloud.network.delete_group(p.required("SecurityGroupId"))
    return {}
