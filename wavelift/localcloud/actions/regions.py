from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.entities import INSTANCE_TYPES, REGION, ZONES
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.model.sizes import CATEGORIES
from wavelift.localcloud.rpc.parameters import Parameters


@action("DescribeRegions")
def describe_regions(cloud: Cloud, p: Parameters) -> Reply:
    region = {"RegionId": REGION, "LocalName": "Local", "RegionEndpoint": "", "Status": "available"}
    return {"Regions": {"Region": [region]}}


@action("DescribeZones")
def describe_zones(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    zones = [
        {
            "ZoneId": zone,
            "LocalName": zone,
            "ZoneType": "AvailabilityZone",
            "AvailableDiskCategories": {"DiskCategories": sorted(CATEGORIES)},
            "AvailableInstanceTypes": {"InstanceTypes": sorted(INSTANCE_TYPES)},
            "AvailableResourceCreation": {"ResourceTypes": ["VSwitch", "Instance", "Disk"]},
        }
        for zone in ZONES
    ]
    return {"Zones": {"Zone": zones}}


@action("DescribeInstanceTypes")
def describe_instance_types(cloud: Cloud, p: Parameters) -> Reply:
    wanted = set(p.repeated("InstanceTypes"))
    family = p.text("InstanceTypeFamily")
    cores, memory = p.integer("MinimumCpuCoreCount"), p.integer("MinimumMemorySize")
    types = [
        {
            "InstanceTypeId": kind.id,
            "InstanceTypeFamily": kind.family,
            "CpuCoreCount": kind.cores,
            "MemorySize": float(kind.memory),
            "CpuArchitecture": "X86",
            "GPUAmount": 0,
            "SupportedBootModes": {"SupportedBootMode": ["BIOS", "UEFI"]},
        }
        for kind in INSTANCE_TYPES.values()
        if (not wanted or kind.id in wanted)
        and (family is None or kind.family == family)
        and (cores is None or kind.cores >= cores)
        and (memory is None or kind.memory >= memory)
    ]
    return {"InstanceTypes": {"InstanceType": types}, "NextToken": ""}
