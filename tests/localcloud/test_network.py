from typing import Any

import pytest
from alibabacloud_ecs20140526 import models

from wavelift.localcloud.entities import Rule
from wavelift.localcloud.model.network import forwarded


def test_seed(ecs: Any) -> None:
    assert [v["VpcId"] for v in ecs.call("describe_vpcs")["Vpcs"]["Vpc"]] == ["vpc-local"]
    switches = ecs.call("describe_vswitches")["VSwitches"]["VSwitch"]
    assert {s["VSwitchId"]: s["ZoneId"] for s in switches} == {
        "vsw-local-a": "cn-local-a",
        "vsw-local-b": "cn-local-b",
    }
    (group,) = ecs.call("describe_security_groups")["SecurityGroups"]["SecurityGroup"]
    assert (group["SecurityGroupId"], group["SecurityGroupName"]) == ("sg-local-default", "default")
    assert [z["ZoneId"] for z in ecs.call("describe_zones")["Zones"]["Zone"]] == ["cn-local-a", "cn-local-b"]


def test_life_of_a_rule(ecs: Any) -> None:
    name = ecs.call("create_security_group", vpc_id="vpc-local")["SecurityGroupId"]
    permission = models.AuthorizeSecurityGroupRequestPermissions
    ecs.call(
        "authorize_security_group",
        security_group_id=name,
        permissions=[
            permission(ip_protocol="TCP", port_range="80/80", source_cidr_ip="10.0.0.0/8", priority="5"),
            permission(ip_protocol="UDP", port_range="53/53", source_cidr_ip="10.0.0.1", description="names"),
            permission(ip_protocol="ALL", port_range="-1/-1", source_group_id="sg-local-default"),
        ],
    )

    def rules(**fields: Any) -> list[dict[str, Any]]:
        answer = ecs.call("describe_security_group_attribute", security_group_id=name, **fields)
        found: list[dict[str, Any]] = answer["Permissions"]["Permission"]
        return found

    web, names, everything = rules()
    assert (web["Priority"], names["Description"], everything["SourceGroupId"]) == ("5", "names", "sg-local-default")
    assert rules(direction="egress") == []
    ecs.call("revoke_security_group", security_group_id=name, security_group_rule_id=[names["SecurityGroupRuleId"]])
    assert rules() == [web, everything]
    gone = {"ip_protocol": "tcp", "port_range": "80/80", "source_cidr_ip": "10.0.0.0/8"}
    for _ in range(2):  # the second time it is not there, and no error
        ecs.call("revoke_security_group", security_group_id=name, **gone)
    assert rules() == [everything]
    with ecs.refused("DependencyViolation", 403):
        ecs.call("delete_security_group", security_group_id="sg-local-default")  # named by that rule
    ecs.call("delete_security_group", security_group_id=name)


def test_rules_in_pages(ecs: Any) -> None:
    name = ecs.call("create_security_group", vpc_id="vpc-local")["SecurityGroupId"]
    permission = models.AuthorizeSecurityGroupRequestPermissions
    rules = [permission(ip_protocol="TCP", port_range=f"{n}/{n}", source_cidr_ip="10.0.0.1") for n in range(1, 13)]
    ecs.call("authorize_security_group", security_group_id=name, permissions=rules)
    seen, token = [], None
    while token != "":
        fields = {"security_group_id": name, "max_results": 10, "next_token": token}
        page = ecs.call("describe_security_group_attribute", **fields)
        seen += [rule["PortRange"] for rule in page["Permissions"]["Permission"]]
        token = page["NextToken"]
    assert sorted(seen) == sorted(f"{n}/{n}" for n in range(1, 13))
    with ecs.refused("InvalidParameter", 400):
        ecs.call("describe_security_group_attribute", security_group_id=name, max_results=9)


@pytest.mark.parametrize(
    ("fields", "code", "status"),
    [
        ({"source_cidr_ip": "10.0.0.300"}, "InvalidParameter", 400),
        ({"source_group_id": "sg-none"}, "InvalidSecurityGroupId.NotFound", 404),
        ({}, "MissingParameter", 400),
        ({"source_cidr_ip": "10.0.0.1", "policy": "perhaps"}, "InvalidPolicy.Malformed", 400),
        ({"source_cidr_ip": "10.0.0.1", "ip_protocol": "SCTP"}, "InvalidParameter", 400),
        ({"source_prefix_list_id": "pl-1"}, "InvalidParameter", 400),
    ],
)
def test_refused_rules(ecs: Any, fields: dict[str, str], code: str, status: int) -> None:
    order = {"security_group_id": "sg-local-default", "ip_protocol": "TCP", "port_range": "80/80", **fields}
    with ecs.refused(code, status):
        ecs.call("authorize_security_group", **order)


def test_names_and_tokens_of_groups(ecs: Any) -> None:
    made = {ecs.call("create_security_group", client_token="group")["SecurityGroupId"] for _ in range(2)}
    assert len(made) == 1
    name = made.pop()
    ecs.call("modify_security_group_attribute", security_group_id=name, security_group_name="renamed")
    found = ecs.call("describe_security_groups", security_group_name="renamed")["SecurityGroups"]["SecurityGroup"]
    assert [group["SecurityGroupId"] for group in found] == [name]
    assert ecs.call("describe_security_groups", security_group_type="enterprise")["TotalCount"] == 0
    with ecs.refused("InvalidSecurityGroupName.Malformed", 400):
        ecs.call("create_security_group", security_group_name="1")
    with ecs.refused("InvalidParameter", 400):
        ecs.call("create_security_group", security_group_type="enterprise")


def test_switches_by_zone(ecs: Any) -> None:
    switches = ecs.call("describe_vswitches", zone_id="cn-local-b")["VSwitches"]["VSwitch"]
    assert [s["VSwitchId"] for s in switches] == ["vsw-local-b"]


def test_instance_types(ecs: Any) -> None:
    types = ecs.call("describe_instance_types", instance_types=["ecs.g7.large"])["InstanceTypes"]["InstanceType"]
    assert [(t["InstanceTypeId"], t["CpuCoreCount"], t["MemorySize"]) for t in types] == [("ecs.g7.large", 2, 8.0)]


def test_life_of_a_group(ecs: Any) -> None:
    group = ecs.call("create_security_group", vpc_id="vpc-local", security_group_name="web", tags={"wave": "1"})
    name = group["SecurityGroupId"]
    assert name.startswith("sg-") and len(name) == 23
    for _ in range(2):  # twice is once
        ecs.call(
            "authorize_security_group",
            security_group_id=name,
            ip_protocol="tcp",
            port_range="80/80",
            source_cidr_ip="0.0.0.0/0",
        )
    rules = ecs.call("describe_security_group_attribute", security_group_id=name)["Permissions"]["Permission"]
    assert [(r["IpProtocol"], r["PortRange"], r["Policy"]) for r in rules] == [("TCP", "80/80", "Accept")]
    found = ecs.call("describe_security_groups", tags={"wave": "1"})["SecurityGroups"]["SecurityGroup"]
    assert [g["SecurityGroupId"] for g in found] == [name]
    ecs.call("delete_security_group", security_group_id=name)
    with ecs.refused("InvalidSecurityGroupId.NotFound", 404):
        ecs.call("describe_security_group_attribute", security_group_id=name)


def test_a_group_in_use_stays(ecs: Any, host: str) -> None:
    with ecs.refused("DependencyViolation", 403):
        ecs.call("delete_security_group", security_group_id="sg-local-default")


@pytest.mark.parametrize("ports", ["0/1", "80", "90/80", "1/70000"])
def test_malformed_ports(ecs: Any, ports: str) -> None:
    with ecs.refused("InvalidParameter", 400):
        ecs.call(
            "authorize_security_group",
            security_group_id="sg-local-default",
            ip_protocol="tcp",
            port_range=ports,
            source_cidr_ip="0.0.0.0/0",
        )


def test_unknown_vpc(ecs: Any) -> None:
    with ecs.refused("InvalidVpcId.NotFound", 404):
        ecs.call("create_security_group", vpc_id="vpc-other")


def rule(ports: str, protocol: str = "TCP", policy: str = "Accept") -> Rule:
    return Rule(protocol=protocol, ports=ports, source="0.0.0.0/0", policy=policy)


def test_which_ports_are_forwarded() -> None:
    rules = [rule("80/80"), rule("22/24"), rule("1/65535"), rule("53/53", "UDP"), rule("25/25", policy="Drop")]
    assert forwarded([*rules, rule("-1/-1", "ALL")]) == [22, 23, 24, 80]


def test_there_is_an_end_to_forwarded_ports() -> None:
    assert len(forwarded(rule(f"{n}/{n + 63}") for n in range(1, 1000, 64))) == 256
