"""What there is to order, and where."""

from typing import Any

from wavelift.localcloud.actions import fields
from wavelift.localcloud.actions.paging import Limits, identifiers, page_by_token
from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.entities import INSTANCE_TYPES, REGION, ZONES, InstanceType
from wavelift.localcloud.errors import ApiError, missing
from wavelift.localcloud.model import sizes
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.model.disks import DATA_DISKS
from wavelift.localcloud.rpc.parameters import Parameters

MOST_TYPES = 10
TYPE_PAGE = Limits(most=1600, usual=1600)
TARGETS = frozenset({"Zone", "IoOptimized", "InstanceType", "Network", "ddh", "SystemDisk", "DataDisk"})
IN_STOCK = {"Status": "Available", "StatusCategory": "WithStock"}
SOLD_OUT = {"Status": "SoldOut", "StatusCategory": "WithoutStock"}
# Filters for what no type here has.
NOTHING = ("GPUSpec", "LocalStorageCategory", "MinimumGPUAmount", "MinimumEriQuantity")
# Filters by what is not known of these types.
UNKNOWN = (
    *("MaximumCpuSpeedFrequency", "MaximumCpuTurboFrequency", "MinimumCpuSpeedFrequency", "MinimumCpuTurboFrequency"),
    *("MinimumBaselineCredit", "MinimumInitialCredit", "MinimumEniQuantity", "MinimumDiskQuantity"),
    *("MinimumEniIpv6AddressQuantity", "MinimumEniPrivateIpAddressQuantity", "MinimumPrimaryEniQueueNumber"),
    *("MinimumSecondaryEniQueueNumber", "MinimumQueuePairNumber", "MinimumLocalStorageAmount"),
    *("MinimumLocalStorageCapacity", "MinimumInstanceBandwidthRx", "MinimumInstanceBandwidthTx"),
    *("MinimumInstancePpsRx", "MinimumInstancePpsTx", "PhysicalProcessorModel"),
)
FAMILY = {"c7": "Compute-optimized", "g7": "General-purpose"}


@action("DescribeRegions")
def describe_regions(cloud: Cloud, p: Parameters) -> Reply:
    region = {"RegionId": REGION, "LocalName": "Local", "RegionEndpoint": "", "Status": "available"}
    return {"Regions": {"Region": [region]}}


@action("DescribeZones")
def describe_zones(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    categories = sorted(sizes.CATEGORIES)
    resources = {
        "IoOptimized": True,
        "InstanceTypes": {"supportedInstanceType": sorted(INSTANCE_TYPES)},
        "InstanceTypeFamilies": {"supportedInstanceTypeFamily": _families()},
        "SystemDiskCategories": {"supportedSystemDiskCategory": categories},
        "DataDiskCategories": {"supportedDataDiskCategory": categories},
        "NetworkTypes": {"supportedNetworkCategory": ["vpc"]},
    }
    details = {
        "AvailableDiskCategories": {"DiskCategories": categories},
        "AvailableInstanceTypes": {"InstanceTypes": sorted(INSTANCE_TYPES)},
        "AvailableResourceCreation": {"ResourceTypes": ["VSwitch", "Instance", "Disk"]},
        "AvailableResources": {"ResourcesInfo": [resources]},
    }
    shown = details if p.flag("Verbose", True) else {}
    zones = [{"ZoneId": zone, "LocalName": zone, "ZoneType": "AvailabilityZone", **shown} for zone in ZONES]
    return {"Zones": {"Zone": zones}}


def _families() -> list[str]:
    return sorted({kind.family for kind in INSTANCE_TYPES.values()})


@action("DescribeInstanceTypeFamilies")
def describe_instance_type_families(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    generation = p.text("Generation")
    families = [
        {"InstanceTypeFamilyId": family, "Generation": "ecs-7"}
        for family in _families()
        if generation in {None, "ecs-7"}
    ]
    return {"InstanceTypeFamilies": {"InstanceTypeFamily": families}}


@action("DescribeInstanceTypes")
def describe_instance_types(cloud: Cloud, p: Parameters) -> Reply:
    fields.unsupported(p, *UNKNOWN)
    kinds = [kind for kind in INSTANCE_TYPES.values() if _wanted(p, kind)]
    found, token = page_by_token(p, kinds, TYPE_PAGE, lambda kind: (0.0, kind.id))
    return {"NextToken": token, "InstanceTypes": {"InstanceType": [_describe(kind) for kind in found]}}


def _wanted(p: Parameters, kind: InstanceType) -> bool:
    types, families = identifiers(p, "InstanceTypes", MOST_TYPES), identifiers(p, "InstanceTypeFamilies", MOST_TYPES)
    architectures = p.repeated("CpuArchitectures") or [p.text("CpuArchitecture") or "X86"]
    low, high = p.integer("MinimumCpuCoreCount"), p.integer("MaximumCpuCoreCount")
    least, most = _number(p, "MinimumMemorySize"), _number(p, "MaximumMemorySize")
    return (
        (not types or kind.id in types)
        and (not families or kind.family in families)
        and p.text("InstanceTypeFamily") in {None, kind.family}
        and p.text("InstanceFamilyLevel") in {None, "EnterpriseLevel"}
        and p.text("InstanceCategory") in {None, _category(kind)}
        and "X86" in architectures
        and not any(p.text(name) not in {None, "0"} for name in NOTHING)
        and (low is None or kind.cores >= low)
        and (high is None or kind.cores <= high)
        and (least is None or kind.memory >= least)
        and (most is None or kind.memory <= most)
    )


def _number(p: Parameters, field: str) -> float | None:
    value = p.text(field)
    return float(value) if value is not None else None


def _category(kind: InstanceType) -> str:
    return FAMILY[kind.family.rpartition(".")[2]]


def _describe(kind: InstanceType) -> dict[str, Any]:
    return {
        "InstanceTypeId": kind.id,
        "InstanceTypeFamily": kind.family,
        "InstanceFamilyLevel": "EnterpriseLevel",
        "InstanceCategory": _category(kind),
        "CpuCoreCount": kind.cores,
        "MemorySize": float(kind.memory),
        "CpuArchitecture": "X86",
        "GPUAmount": 0,
        "DiskQuantity": 1 + DATA_DISKS,
        "EniQuantity": 1,
        "NvmeSupport": "unsupported",
        "SupportedBootModes": {"SupportedBootMode": ["BIOS", "UEFI"]},
    }


@action("DescribeAvailableResource")
def describe_available_resource(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    if p.text("DestinationResource") is None:
        raise missing("DestinationResource")
    fields.unsupported(p, "DedicatedHostId")
    target, zone = p.choice("DestinationResource", TARGETS), p.text("ZoneId")
    if zone is not None and zone not in ZONES:
        raise ApiError("InvalidZoneId.NotFound", "The specified zone does not exist.")
    zones = []
    for name in ZONES if zone is None else [zone]:
        stock = {} if p.text("InstanceChargeType") == "PrePaid" else _supported(cloud, p, target or "", name)
        if stock or target == "Zone":
            resources = {"AvailableResource": [stock] if stock else []}
            zones.append({"RegionId": REGION, "ZoneId": name, **IN_STOCK, "AvailableResources": resources})
    return {"AvailableZones": {"AvailableZone": zones}}


def _supported(cloud: Cloud, p: Parameters, target: str, zone: str) -> dict[str, Any]:
    """What the zone has of the target; nothing when the request's own choice excludes it."""
    kind = p.text("InstanceType")
    for_instances = target == "SystemDisk" or (target == "DataDisk" and p.text("ResourceType") == "instance")
    if for_instances and kind is None:
        raise missing("InstanceType")
    if kind is not None and (kind not in INSTANCE_TYPES or not cloud.instances.offered(zone, kind)):
        return {}
    if target == "SystemDisk":
        found = [_disk(c, True) for c in sorted(sizes.CATEGORIES) if p.text("SystemDiskCategory") in {None, c}]
    elif target == "DataDisk":
        found = [_disk(c, False) for c in sorted(sizes.CATEGORIES) if p.text("DataDiskCategory") in {None, c}]
    elif target == "InstanceType":
        found = _types(cloud, p, kind)
    else:
        values = {"IoOptimized": "optimized", "Network": "vpc"}
        found = [{"Value": values[target], **IN_STOCK}] if target in values else []
    found = [each for each in found if cloud.instances.offered(zone, each["Value"])]
    return {"Type": target, "SupportedResources": {"SupportedResource": found}} if found else {}


def _types(cloud: Cloud, p: Parameters, only: str | None) -> list[dict[str, Any]]:
    cores, memory = p.integer("Cores"), _number(p, "Memory")
    return [
        {"Value": kind.id, **(IN_STOCK if cloud.instances.in_stock(kind.id) else SOLD_OUT)}
        for kind in INSTANCE_TYPES.values()
        if only in {None, kind.id} and cores in {None, kind.cores} and memory in {None, float(kind.memory)}
    ]


def _disk(category: str, system: bool) -> dict[str, Any]:
    kind = sizes.Class.of(category, None, "Disk")
    low, high = kind.system_range() if system else kind.data_range()
    return {"Value": category, "Min": low, "Max": high, "Unit": "GiB", **IN_STOCK}
