"""What the account, region and zone offer, and why something ordered there would not fit."""

from __future__ import annotations

from alibabacloud_ecs20140526 import models

from storage_backends.alibaba_inventory import Inventory
from storage_backends.base import InstanceSpec
from storage_backends.ecs import EcsApi
from storage_backends.errors import NotFound
from storage_backends.settings import AlibabaSettings


class Offer:
    def __init__(self, settings: AlibabaSettings, api: EcsApi, inventory: Inventory) -> None:
        self._settings = settings
        self._api = api
        self._inventory = inventory

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

    def check_target(self, spec: InstanceSpec) -> list[str]:
        region, gateway = self._settings.region, self._settings.gateway
        reasons = []
        answer = self._api.call(
            "describe_vswitches", models.DescribeVSwitchesRequest(region_id=region, v_switch_id=spec.vswitch)
        )
        switches = answer["VSwitches"]["VSwitch"]
        if not switches:
            reasons.append(f"vSwitch {spec.vswitch} does not exist in {region}; correct target.vswitch.")
        elif switches[0]["ZoneId"] != self._settings.zone:
            reasons.append(
                f"vSwitch {spec.vswitch} is in zone {switches[0]['ZoneId']}, the volumes will be in "
                f"{self._settings.zone}; choose a vSwitch of that zone."
            )
        for group in (spec.security_group, gateway.security_group):
            try:
                self._inventory.security_group(group)
            except NotFound as error:
                reasons.append(str(error))
        known = self._inventory.instance_types([spec.instance_type, gateway.instance_type])
        reasons += [
            f"Instance type {name} does not exist in {region}; choose one that DescribeInstanceTypes lists."
            for name in dict.fromkeys((spec.instance_type, gateway.instance_type))
            if name not in known
        ]
        images = self._api.call(
            "describe_images", models.DescribeImagesRequest(region_id=region, image_id=gateway.image)
        )
        if not images["Images"]["Image"]:
            reasons.append(
                f"Gateway image {gateway.image} does not exist in {region}; correct gateway_image in the connection."
            )
        return reasons
