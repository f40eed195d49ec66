"""Machines for accounts that may make no system disk of a data disk's snapshot: an instance is made of a donor image
and never started; its system disk is written over elsewhere and comes back to it, as ECS allows.
"""

from __future__ import annotations

import secrets

from alibabacloud_ecs20140526 import models

from storage_backends.alibaba import resources as parse
from storage_backends.alibaba.ecs import EcsApi
from storage_backends.alibaba.inventory import Inventory, tagged
from storage_backends.alibaba.settings import AlibabaSettings
from storage_backends.base import TAG_PREFIX, ImageStrategy, InstanceSpec, Kind, Labels, Resource, State
from storage_backends.errors import BackendError, Conflict, DryRunPassed, NotFound, NotWhitelisted, Unavailable

_PUBLIC_BANDWIDTH_MBIT = 5
# Snapshots of strangers may be refused for reasons of their own: encrypted, shared, of another resource group.
_TRIES = 5
_START_SECONDS = 60.0


class Donors:
    def __init__(self, settings: AlibabaSettings, api: EcsApi, inventory: Inventory) -> None:
        self._settings = settings
        self._api = api
        self._inventory = inventory

    def strategy(self) -> ImageStrategy | None:
        """What the connection says; else what CreateImage, asked without being carried out, says of any snapshot of a
        data disk; None where there is none that tells."""
        if self._settings.image_strategy is not None:
            return self._settings.image_strategy
        request = models.DescribeSnapshotsRequest(
            region_id=self._settings.region, source_disk_type="Data", status="accomplished", page_size=_TRIES
        )
        for snapshot in self._api.call("describe_snapshots", request)["Snapshots"]["Snapshot"]:
            if (found := self._tried(snapshot["SnapshotId"])) is not None:
                return found
        return None

    def _tried(self, snapshot_id: str) -> ImageStrategy | None:
        device = models.CreateImageRequestDiskDeviceMapping(
            device="/dev/xvda", disk_type="system", snapshot_id=snapshot_id
        )
        request = models.CreateImageRequest(
            region_id=self._settings.region,
            image_name=f"wavelift-dry-run-{secrets.token_hex(4)}",
            disk_device_mapping=[device],
            dry_run=True,
        )
        try:
            self._api.call("create_image", request)
        except DryRunPassed:
            return ImageStrategy.DEVICE_MAPPING
        except NotWhitelisted:
            return ImageStrategy.DONOR
        except Unavailable:
            raise
        except BackendError:
            return None
        return None

    def check(self) -> list[str]:
        """Reasons why no donor could be made, where one is needed or prepared for."""
        name = self._settings.donor_image
        if not name:
            if self.strategy() is not ImageStrategy.DONOR:
                return []
            return [
                "This account may make no system disk of a data disk's snapshot, and the connection names no "
                "donor_image; name a small Linux image that boots by BIOS."
            ]
        image = self._image()
        if image is None:
            return [
                f"Donor image {name} does not exist in {self._settings.region}; correct donor_image in the connection."
            ]
        if image.get("BootMode") not in (None, "", "BIOS"):
            return [f"Donor image {name} boots by {image['BootMode']}; name one that boots by BIOS."]
        return []

    def _image(self) -> dict[str, object] | None:
        if not self._settings.donor_image:
            return None
        request = models.DescribeImagesRequest(region_id=self._settings.region, image_id=self._settings.donor_image)
        images: list[dict[str, object]] = self._api.call("describe_images", request)["Images"]["Image"]
        return images[0] if images else None

    def create(self, labels: Labels, spec: InstanceSpec) -> Resource:
        """Stopped, with a system disk of the size asked for, or of the image's where that is larger. It is not started
        as it is: it has no business in the network."""
        image = self._image()
        if image is None:
            raise NotFound(
                f"Donor image {self._settings.donor_image!r} does not exist in {self._settings.region}.",
                "Name an image as donor_image in the extra of the cloud connection.",
            )
        group = self._inventory.security_group(spec.security_group)

        def create(token: str, name: str) -> str:
            request = models.CreateInstanceRequest(
                region_id=self._settings.region,
                zone_id=self._settings.zone,
                image_id=self._settings.donor_image,
                instance_type=spec.instance_type,
                instance_name=name,
                v_switch_id=spec.vswitch,
                security_group_id=group,
                internet_max_bandwidth_out=_PUBLIC_BANDWIDTH_MBIT if spec.public_ip else 0,
                system_disk=models.CreateInstanceRequestSystemDisk(
                    category=spec.disk_category,
                    size=max(spec.system_gib, int(str(image.get("Size") or 0))),
                    performance_level=spec.performance_level,
                ),
                client_token=token,
                tag=tagged(models.CreateInstanceRequestTag, labels),
            )
            return str(self._api.call("create_instance", request)["InstanceId"])

        donor = self._inventory.settled(self._inventory.once(Kind.INSTANCE, labels, create))
        if spec.public_ip and donor.state is State.STOPPED:
            self._give_address(donor.id)
        return donor

    def _give_address(self, instance_id: str) -> None:
        """CreateInstance gives none, unlike RunInstances."""
        try:
            request = models.AllocatePublicIpAddressRequest(instance_id=instance_id)
            self._api.call("allocate_public_ip_address", request)
        except Conflict as error:
            if "AllocatedAlready" not in error.message:
                raise

    def disk(self, donor: Resource, labels: Labels) -> Resource:
        """Its system disk, wherever that is attached. Raises NotFound."""
        for disk in self._describe(donor.id):
            if disk["Type"] == "system":
                return parse.volume(disk)
        # Taken off it still has the tags of the order.
        for volume in self._inventory.list(labels, Kind.VOLUME):
            return volume
        raise NotFound(f"Instance {donor.id} has lost its system disk.", "Clear the task driver_inject.")

    def disks_of(self, instance_id: str) -> list[Resource]:
        disks = self._describe(instance_id)
        return [
            parse.volume(disk) for disk in sorted(disks, key=lambda disk: (disk["Type"] != "system", disk["Device"]))
        ]

    def _describe(self, instance_id: str) -> list[dict[str, str]]:
        request = models.DescribeDisksRequest(region_id=self._settings.region, instance_id=instance_id, page_size=100)
        found: list[dict[str, str]] = self._api.call("describe_disks", request)["Disks"]["Disk"]
        return found

    def give(self, volume_id: str) -> None:
        request = models.ModifyDiskAttributeRequest(
            region_id=self._settings.region, disk_id=volume_id, delete_with_instance=True
        )
        self._api.call("modify_disk_attribute", request)

    def mark(self, resource: Resource, name: str, value: str) -> None:
        request = models.TagResourcesRequest(
            region_id=self._settings.region,
            resource_type="disk" if resource.kind is Kind.VOLUME else resource.kind.value,
            resource_id=[resource.id],
            tag=[models.TagResourcesRequestTag(key=TAG_PREFIX + name, value=value)],
        )
        self._api.call("tag_resources", request)

    def start(self, instance_id: str) -> None:
        if self._inventory.get(Kind.INSTANCE, instance_id).state is not State.STOPPED:
            return
        try:
            self._api.call("start_instance", models.StartInstanceRequest(instance_id=instance_id))
        except Conflict:
            # The reply to an earlier attempt may have been lost: it starts.
            if not self._inventory.becomes(Kind.INSTANCE, instance_id, _not_stopped):
                raise
        self._inventory.until(Kind.INSTANCE, instance_id, _not_stopped, "started", _START_SECONDS)


def _not_stopped(instance: Resource) -> bool:
    return instance.state is not State.STOPPED


def bootable_password() -> str:
    """ECS wants one with a system disk; the guest has accounts of its own, and nobody is told."""
    return f"Aa1-{secrets.token_urlsafe(18)}"
