import ipaddress
import re
import time
from typing import Any

from wavelift.localcloud.actions import fields
from wavelift.localcloud.actions.paging import Limits, page, page_by_number, page_by_token, tag_list
from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.entities import BLOCKS, REGION, VPC, VSWITCHES, Rule, SecurityGroup
from wavelift.localcloud.errors import ApiError, invalid, missing
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.model.tags import matches
from wavelift.localcloud.rpc.formats import timestamp
from wavelift.localcloud.rpc.parameters import Parameters

PROTOCOLS = frozenset({"TCP", "UDP", "ICMP", "ICMPv6", "GRE", "ALL"})
MOST_RULES = 100
RULE_PAGE = Limits(least=10, most=1000, usual=500)


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
    meant = (wanted is None or VPC in wanted.split(",")) and p.flag("IsDefault", True)
    found, paging = page_by_number(p, [vpc] if meant else [])
    return {**paging, "Vpcs": {"Vpc": list(found)}}


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
    found, paging = page_by_number(p, switches if p.flag("IsDefault", True) else [])
    return {**paging, "VSwitches": {"VSwitch": list(found)}}


@action("DescribeSecurityGroups")
def describe_security_groups(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    found, paging = page(p, _matching(cloud, p))
    fields.dry_run(p)
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
            "ResourceGroupId": "",
            "ServiceManaged": False,
            "Tags": tag_list(group.tags),
        }
        for group in found
    ]
    return {**paging, "RegionId": REGION, "SecurityGroups": {"SecurityGroup": described}}


def _matching(cloud: Cloud, p: Parameters) -> list[SecurityGroup]:
    several = p.json_list("SecurityGroupIds")
    ids = several if several is not None else [single] if (single := p.text("SecurityGroupId")) else None
    name, vpc, tags = p.text("SecurityGroupName"), p.text("VpcId"), p.wanted_tags()
    kind, network = p.text("SecurityGroupType"), p.text("NetworkType")
    if kind not in {None, "normal"} or network not in {None, "vpc"} or p.text("ResourceGroupId"):
        return []
    return [
        group
        for group in cloud.network.groups()
        if (ids is None or group.id in ids)
        and name in {None, group.name}
        and vpc in {None, group.vpc}
        and matches(group.tags, tags)
    ]


@action("DescribeSecurityGroupAttribute")
def describe_security_group_attribute(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    group = cloud.network.group(p.required("SecurityGroupId"))
    direction = (p.text("Direction") or "all").lower()
    rules = group.rules if direction in {"all", "ingress"} else []
    found, token = page_by_token(p, rules, RULE_PAGE, lambda rule: (rule.created, rule.id))
    return {
        "RegionId": REGION,
        "VpcId": group.vpc,
        "SecurityGroupId": group.id,
        "SecurityGroupName": group.name,
        "Description": group.description,
        "InnerAccessPolicy": "Accept",
        "NextToken": token,
        "Permissions": {"Permission": [_describe(rule) for rule in found]},
    }


def _describe(rule: Rule) -> dict[str, Any]:
    group = rule.source.startswith(SecurityGroup.prefix)
    return {
        "SecurityGroupRuleId": rule.id,
        "Direction": "ingress",
        "IpProtocol": rule.protocol,
        "PortRange": rule.ports,
        "SourceCidrIp": "" if group else rule.source,
        "SourceGroupId": rule.source if group else "",
        "Policy": rule.policy,
        "Priority": str(rule.priority),
        "NicType": "intranet",
        "Description": rule.description,
        "CreateTime": timestamp(rule.created),
    }


@action("CreateSecurityGroup")
def create_security_group(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    fields.no_resource_group(p)
    if p.text("SecurityGroupType") == "enterprise":
        raise invalid("SecurityGroupType", "This cloud has basic security groups only.")
    name, description = fields.name(p, "SecurityGroupName") or "", fields.description(p) or ""
    token = p.token("CreateSecurityGroup")
    return {"SecurityGroupId": cloud.network.create_group(p.text("VpcId") or VPC, name, description, p.tags(), token)}


@action("ModifySecurityGroupAttribute")
def modify_security_group_attribute(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    name, description = fields.name(p, "SecurityGroupName"), fields.description(p)
    cloud.network.modify_group(p.required("SecurityGroupId"), name, description)
    return {}


@action("AuthorizeSecurityGroup")
def authorize_security_group(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    cloud.network.authorize(p.required("SecurityGroupId"), _rules(p) or [_rule(p)])
    return {}


@action("RevokeSecurityGroup")
def revoke_security_group(cloud: Cloud, p: Parameters) -> Reply:
    """By the rules' ids, or by what they say."""
    check_region(p.required("RegionId"))
    ids, rules = p.repeated("SecurityGroupRuleId"), _rules(p)
    cloud.network.revoke(p.required("SecurityGroupId"), rules or ([] if ids else [_rule(p)]), ids)
    return {}


def _rules(p: Parameters) -> list[Rule]:
    """Rules as a list; an older request has one, in its own fields."""
    entries = p.structures("Permissions")
    if len(entries) > MOST_RULES:
        raise invalid("Permissions", f"There are at most {MOST_RULES}.")
    return [_rule(entry) for entry in entries]


def _rule(p: Parameters) -> Rule:
    fields.unsupported(p, "SourcePrefixListId", "PortRangeListId", "SourcePortRange", "DestCidrIp", "Ipv6DestCidrIp")
    protocol = p.required("IpProtocol").upper().replace("ICMPV6", "ICMPv6")
    if protocol not in PROTOCOLS:
        raise invalid("IpProtocol")
    policy = (p.text("Policy") or "accept").capitalize()
    if policy not in {"Accept", "Drop"}:
        raise ApiError("InvalidPolicy.Malformed", "The policy is accept or drop.")
    return Rule(
        created=time.time(),
        protocol=protocol,
        ports=_ports(p, protocol),
        source=_source(p),
        policy=policy,
        priority=p.integer("Priority", 1, 100) or 1,
        description=p.text("Description") or "",
    )


def _ports(p: Parameters, protocol: str) -> str:
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
    return ports


def _source(p: Parameters) -> str:
    """A block goes before a group."""
    block, group = p.text("SourceCidrIp") or p.text("Ipv6SourceCidrIp"), p.text("SourceGroupId")
    if block is None:
        if group is None:
            raise missing("SourceCidrIp")
        return group
    try:
        ipaddress.ip_network(block, strict=False)
    except ValueError:
        raise invalid("SourceCidrIp") from None
    return block


@action("DeleteSecurityGroup")
def delete_security_group(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    cloud.network.delete_group(p.required("SecurityGroupId"))
    return {}
