"""What the account, region and zone offer, and why something ordered there would not fit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from alibabacloud_ecs20140526 import models

from storage_backends.alibaba.ecs import EcsApi
from storage_backends.alibaba.inventory import Inventory
from storage_backends.alibaba.settings import AlibabaSettings
from storage_backends.alibaba.stock import Sizes, Stock, nearest_categories, nearest_types
from storage_backends.base import InstanceSpec, VolumeSpec
from storage_backends.errors import NotFound


class Offer:
    def __init__(self, settings: AlibabaSettings, api: EcsApi, inventory: Inventory) -> None:
        self._settings = settings
        self._api = api
        self._inventory = inventory
        self._stock = Stock(api, settings.region)

    def check_access(self) -> None:
        settings = self._settings
        regions = self._api.call("describe_regions", models.DescribeRegionsRequest())["Regions"]["Region"]
        if settings.region not in {region["RegionId"] for region in regions}:
            names = ", ".join(region["RegionId"] for region in regions)
            raise NotFound(f"Region {settings.region} is not offered.", f"Set cloud.region to one of: {names}.")
        request = models.DescribeZonesRequest(region_id=settings.region)
        zones = [zone["ZoneId"] for zone in self._api.call("describe_zones", request)["Zones"]["Zone"]]
        if settings.zone not in zones:
            raise NotFound(
                f"Zone {settings.zone} is not in region {settings.region}.",
                f"Set cloud.zone to one of: {', '.join(zones)}.",
            )

    def check_target(self, spec: InstanceSpec, volumes: Sequence[VolumeSpec]) -> list[str]:
        """Every reason why the instance, its volumes or a gateway could not be had, and what could be instead."""
        return [
            *self._network(spec),
            *self._instance_types(dict.fromkeys((spec.instance_type, *self._settings.gateway.instance_types))),
            *self._disks(spec, volumes),
            *self._gateway_image(),
        ]

    def _network(self, spec: InstanceSpec) -> Iterator[str]:
        region, zone = self._settings.region, self._settings.zone
        request = models.DescribeVSwitchesRequest(region_id=region, v_switch_id=spec.vswitch)
        switches = self._api.call("describe_vswitches", request)["VSwitches"]["VSwitch"]
        if not switches:
            yield f"vSwitch {spec.vswitch} does not exist in {region}; correct target.vswitch."
        elif switches[0]["ZoneId"] != zone:
            yield (
                f"vSwitch {spec.vswitch} is in zone {switches[0]['ZoneId']}, the volumes will be in "
                f"{zone}; choose a vSwitch of that zone."
            )
        for group in (spec.security_group, self._settings.gateway.security_group):
            try:
                self._inventory.security_group(group)
            except NotFound as error:
                yield str(error)

    def _instance_types(self, names: Collection[str]) -> Iterator[str]:
        zone, offered = self._settings.zone, self._stock.instance_types()
        here = offered.get(zone, set())
        missing = [name for name in names if name not in here]
        known = self._stock.known_types() if missing else {}
        for name in missing:
            near = _or_none(nearest_types(name, here, known))
            if name not in known:
                yield (
                    f"Instance type {name} does not exist in {self._settings.region}; "
                    f"most like it in zone {zone}: {near}."
                )
            else:
                elsewhere = _or_none(each for each in sorted(offered) if name in offered[each])
                yield (
                    f"Instance type {name} cannot be had in zone {zone} now; nearest there: {near}; "
                    f"zones that have it: {elsewhere}."
                )

    def _disks(self, spec: InstanceSpec, volumes: Sequence[VolumeSpec]) -> Iterator[str]:
        data = self._stock.data_disks()
        wanted = [VolumeSpec(0, spec.disk_category, spec.performance_level), *volumes]
        yield from self._categories("volumes", {each.category for each in wanted}, data)
        for volume in wanted:
            yield from self._size("volume", volume, data)
        system = self._stock.system_disks(spec.instance_type)
        if self._settings.zone in system:
            yield from self._categories(f"system disks of {spec.instance_type}", {spec.disk_category}, system)
            disk = VolumeSpec(spec.system_gib, spec.disk_category, spec.performance_level)
            yield from self._size("system disk", disk, system)

    def _categories(
        self, what: str, wanted: Collection[str], offered: Mapping[str, Mapping[str, Sizes]]
    ) -> Iterator[str]:
        zone = self._settings.zone
        here = offered.get(zone, {})
        for category in sorted(wanted):
            if category not in here:
                yield (
                    f"Disk category {category} cannot be had for {what} in zone {zone}; nearest there: "
                    f"{_or_none(nearest_categories(category, here))}; zones that have it: "
                    f"{_or_none(each for each in sorted(offered) if category in offered[each])}."
                )

    def _size(self, what: str, wanted: VolumeSpec, offered: Mapping[str, Mapping[str, Sizes]]) -> Iterator[str]:
        """A size of 0 is not known yet; one that is too small is rounded up when it is made."""
        range_ = offered.get(self._settings.zone, {}).get(wanted.category)
        if range_ and wanted.size_gib > range_.largest:
            yield (
                f"A {what} of {wanted.size_gib} GiB is more than the {range_.largest} GiB of {wanted.category} in zone "
                f"{self._settings.zone}; choose another disk category."
            )

    def _gateway_image(self) -> Iterator[str]:
        region, image = self._settings.region, self._settings.gateway.image
        request = models.DescribeImagesRequest(region_id=region, image_id=image)
        if not self._api.call("describe_images", request)["Images"]["Image"]:
            yield f"Gateway image {image} does not exist in {region}; correct gateway_image in the connection."


def _or_none(names: Collection[str] | Iterator[str]) -> str:
    return ", ".join(names) or "none"
