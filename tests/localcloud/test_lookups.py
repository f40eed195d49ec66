from typing import Any

import pytest

from wavelift.localcloud.model.context import Options
from wavelift.localcloud.server import LocalCloud


def test_regions_and_zones(ecs: Any) -> None:
    assert [r["RegionId"] for r in ecs.call("describe_regions")["Regions"]["Region"]] == ["cn-local"]
    zones = ecs.call("describe_zones")["Zones"]["Zone"]
    assert [zone["ZoneId"] for zone in zones] == ["cn-local-a", "cn-local-b"]
    (resources,) = zones[0]["AvailableResources"]["ResourcesInfo"]
    assert "cloud_essd" in resources["DataDiskCategories"]["supportedDataDiskCategory"]
    assert "AvailableResources" not in ecs.call("describe_zones", verbose=False)["Zones"]["Zone"][0]
    with ecs.refused("InvalidRegionId.NotFound", 404):
        ecs.call("describe_zones", region_id="cn-elsewhere")


def types(ecs: Any, **fields: Any) -> list[str]:
    return [t["InstanceTypeId"] for t in ecs.call("describe_instance_types", **fields)["InstanceTypes"]["InstanceType"]]


def test_instance_types(ecs: Any) -> None:
    every = types(ecs)
    assert every == sorted(every) and "ecs.g7.large" in every
    assert types(ecs, instance_type_family="ecs.c7") == [name for name in every if name.startswith("ecs.c7.")]
    assert types(ecs, instance_type_families=["ecs.c7"], minimum_cpu_core_count=8) == ["ecs.c7.2xlarge"]
    assert types(ecs, maximum_memory_size=4.0) == ["ecs.c7.large"]
    assert types(ecs, minimum_memory_size=64.0) == ["ecs.g7.4xlarge"]
    for nothing in ({"cpu_architecture": "ARM"}, {"minimum_gpuamount": 1}, {"local_storage_category": "local_ssd_pro"}):
        assert types(ecs, **nothing) == []
    (large,) = ecs.call("describe_instance_types", instance_types=["ecs.g7.large"])["InstanceTypes"]["InstanceType"]
    assert (large["CpuCoreCount"], large["MemorySize"], large["DiskQuantity"]) == (2, 8.0, 17)
    assert large["SupportedBootModes"]["SupportedBootMode"] == ["BIOS", "UEFI"]


def test_instance_types_in_pages(ecs: Any) -> None:
    seen: list[str] = []
    token = None
    while token != "":
        page = ecs.call("describe_instance_types", max_results=3, next_token=token)
        seen += [t["InstanceTypeId"] for t in page["InstanceTypes"]["InstanceType"]]
        token = page["NextToken"]
    assert seen == types(ecs)
    with ecs.refused("InvalidParameter", 400):
        ecs.call("describe_instance_types", max_results=1601)
    with ecs.refused("InvalidParameter", 400):
        ecs.call("describe_instance_types", instance_types=[f"ecs.c7.{n}" for n in range(11)])


def test_families(ecs: Any) -> None:
    families = ecs.call("describe_instance_type_families")["InstanceTypeFamilies"]["InstanceTypeFamily"]
    assert [family["InstanceTypeFamilyId"] for family in families] == ["ecs.c7", "ecs.g7"]


def supported(ecs: Any, target: str, **fields: Any) -> dict[str, list[dict[str, Any]]]:
    """What each zone has."""
    answer = ecs.call("describe_available_resource", destination_resource=target, **fields)
    return {
        zone["ZoneId"]: [
            resource
            for available in zone["AvailableResources"]["AvailableResource"]
            for resource in available["SupportedResources"]["SupportedResource"]
        ]
        for zone in answer["AvailableZones"]["AvailableZone"]
    }


def test_available_zones(ecs: Any) -> None:
    found = supported(ecs, "Zone", instance_type="ecs.g7.large")
    assert list(found) == ["cn-local-a", "cn-local-b"]
    assert list(supported(ecs, "Zone", zone_id="cn-local-b")) == ["cn-local-b"]
    with ecs.refused("InvalidZoneId.NotFound", 404):
        supported(ecs, "Zone", zone_id="cn-local-z")


def test_available_types(ecs: Any) -> None:
    found = supported(ecs, "InstanceType", zone_id="cn-local-a", cores=2)["cn-local-a"]
    assert {t["Value"]: t["StatusCategory"] for t in found} == {
        "ecs.c7.large": "WithStock",
        "ecs.g7.large": "WithStock",
    }
    assert supported(ecs, "InstanceType", instance_type="ecs.none.large") == {}
    assert supported(ecs, "InstanceType", instance_charge_type="PrePaid") == {}


@pytest.mark.parametrize(
    ("target", "fields", "category", "low", "high"),
    [
        ("DataDisk", {"resource_type": "disk"}, "cloud_essd", 20, 65536),
        ("DataDisk", {"resource_type": "disk"}, "cloud", 5, 2000),
        ("DataDisk", {"resource_type": "instance", "instance_type": "ecs.g7.large"}, "cloud_auto", 1, 65536),
        ("SystemDisk", {"instance_type": "ecs.g7.large"}, "cloud_essd", 20, 2048),
        ("SystemDisk", {"instance_type": "ecs.g7.large"}, "cloud", 20, 500),
    ],
)
def test_available_disks(ecs: Any, target: str, fields: dict[str, str], category: str, low: int, high: int) -> None:
    disks = {disk["Value"]: disk for disk in supported(ecs, target, **fields)["cn-local-a"]}
    disk = disks[category]
    assert (disk["Min"], disk["Max"], disk["Unit"], disk["Status"]) == (low, high, "GiB", "Available")


def test_disks_that_depend_on_the_type(ecs: Any) -> None:
    for target, fields in (("SystemDisk", {}), ("DataDisk", {"resource_type": "instance"})):
        with ecs.refused("MissingParameter", 400):
            supported(ecs, target, **fields)
    only = supported(ecs, "SystemDisk", instance_type="ecs.g7.large", system_disk_category="cloud_ssd")
    assert [disk["Value"] for disk in only["cn-local-a"]] == ["cloud_ssd"]
    with ecs.refused("InvalidParameter", 400):
        supported(ecs, "Moon")


def test_sold_out(ecs: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    with LocalCloud(tmp_path_factory.mktemp("small"), {"K": "S"}, Options(memory=1)) as small:
        found = supported(type(ecs)(small.endpoint, "K", "S"), "InstanceType")["cn-local-a"]
    assert {t["Status"] for t in found} == {"SoldOut"} and {t["StatusCategory"] for t in found} == {"WithoutStock"}


def test_account_attributes(ecs: Any) -> None:
    answer = ecs.call("describe_account_attributes", attribute_name=["max-security-groups"])
    (item,) = answer["AccountAttributeItems"]["AccountAttributeItem"]
    assert item["AttributeValues"]["ValueItem"] == [{"Value": "100"}]
