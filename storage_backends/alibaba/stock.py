"""What the zones of a region have to order, and what comes nearest to something that they have not.

Source: DescribeAvailableResource, which knows nothing of performance levels; DescribeInstanceTypes for what types are.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alibabacloud_ecs20140526 import models

from storage_backends.alibaba.ecs import EcsApi

# From slow to fast: what is near in this order is near in what it does.
_CATEGORIES = ("cloud", "cloud_efficiency", "cloud_essd_entry", "cloud_ssd", "cloud_auto", "cloud_essd")
_NEAREST = 3
_PAGE = 1000


@dataclass(frozen=True)
class Sizes:
    """The smallest and largest disk of a category, in GiB."""

    smallest: int
    largest: int


@dataclass(frozen=True)
class InstanceType:
    """One that the region knows."""

    family: str
    cores: int
    memory_gib: float


class Stock:
    """One region, as it is now: it is asked each time. Everything raises BackendError."""

    def __init__(self, api: EcsApi, region: str) -> None:
        self._api = api
        self._region = region

    def instance_types(self) -> dict[str, set[str]]:
        """By zone, those that can be had now."""
        return {zone: set(found) for zone, found in self._available("InstanceType").items()}

    def data_disks(self) -> dict[str, dict[str, Sizes]]:
        """By zone and category."""
        return self._disks("DataDisk", resource_type="disk")

    def system_disks(self, instance_type: str) -> dict[str, dict[str, Sizes]]:
        """By zone and category, those that such an instance can have."""
        return self._disks("SystemDisk", instance_type=instance_type)

    def known_types(self) -> dict[str, InstanceType]:
        """Every instance type of the region, whether it can be had or not."""
        known: dict[str, InstanceType] = {}
        token: str | None = None
        while True:
            request = models.DescribeInstanceTypesRequest(max_results=_PAGE, next_token=token)
            body = self._api.call("describe_instance_types", request)
            for each in body["InstanceTypes"]["InstanceType"]:
                known[each["InstanceTypeId"]] = InstanceType(
                    each["InstanceTypeFamily"], int(each["CpuCoreCount"]), float(each["MemorySize"])
                )
            token = body.get("NextToken")
            if not token:
                return known

    def _disks(self, destination: str, **choice: str) -> dict[str, dict[str, Sizes]]:
        return {
            zone: {value: Sizes(int(raw.get("Min") or 1), int(raw.get("Max") or 65536)) for value, raw in found.items()}
            for zone, found in self._available(destination, **choice).items()
        }

    def _available(self, destination: str, **choice: str) -> dict[str, dict[str, dict[str, Any]]]:
        """By zone and value, what is in stock."""
        request = models.DescribeAvailableResourceRequest(
            region_id=self._region,
            destination_resource=destination,
            instance_charge_type="PostPaid",
            io_optimized="optimized",
            **choice,
        )
        zones = self._api.call("describe_available_resource", request)["AvailableZones"]["AvailableZone"]
        return {
            zone["ZoneId"]: {
                supported["Value"]: supported
                for resource in zone["AvailableResources"]["AvailableResource"]
                for supported in resource["SupportedResources"]["SupportedResource"]
                if supported.get("Status") == "Available"
            }
            for zone in zones
        }


def nearest_types(wanted: str, offered: set[str], known: Mapping[str, InstanceType]) -> list[str]:
    """Those offered that have most nearly as many cores and as much memory; by name where `wanted` is not known."""
    if wanted not in known:
        return difflib.get_close_matches(wanted, sorted(offered), _NEAREST, cutoff=0.0)
    like = known[wanted]

    def distance(name: str) -> tuple[float, bool, str]:
        one = known[name]
        differs = abs(one.cores - like.cores) / like.cores + abs(one.memory_gib - like.memory_gib) / like.memory_gib
        return differs, one.family != like.family, name

    return sorted(offered & known.keys(), key=distance)[:_NEAREST]


def nearest_categories(wanted: str, offered: Mapping[str, Sizes]) -> list[str]:
    """All that are offered, the most alike first; of two as near, the faster."""

    def distance(name: str) -> tuple[int, int]:
        ranks = [_CATEGORIES.index(each) if each in _CATEGORIES else len(_CATEGORIES) for each in (name, wanted)]
        return abs(ranks[0] - ranks[1]), -ranks[0]

    return sorted(offered, key=distance)
