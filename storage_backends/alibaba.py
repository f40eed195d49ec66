"""Alibaba Cloud as a backend: EBS volumes attached to a gateway instance, snapshots, images and instances by ECS.

Source of every rule: the ECS API 2014-05-26. ClientToken exists on CreateDisk, CreateSnapshot, CreateImage and
RunInstances only; everything else reads the state before it acts.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Sequence

from alibabacloud_ecs20140526 import models
from PIL import Image

from storage_backends.alibaba_inventory import Inventory, tagged
from storage_backends.base import (
    Capabilities,
    InstanceSpec,
    Kind,
    Labels,
    Resource,
    Role,
    VolumeSpec,
)
from storage_backends.ecs import EcsApi
from storage_backends.errors import Conflict, NotFound, Unavailable
from storage_backends.gateway_boot import gateway_identity, gateway_key, gateway_user_data
from storage_backends.settings import AlibabaSettings
from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.service import tokens

_TOKEN_LIFETIME_SECONDS = 6 * 3600
_PUBLIC_BANDWIDTH_MBIT = 5
_DELETE_SECONDS = 60.0


class AlibabaBackend:
    """One account, region and zone. Holds no state of its own: everything is found again by tags."""

    def __init__(self, settings: AlibabaSettings) -> None:
        self._settings = settings
        self._api = EcsApi(
            key_id=settings.access_key_id,
            secret=settings.access_key_secret,
            region=settings.region,
            endpoint=settings.endpoint,
            protocol=settings.protocol,
        )
        self._inventory = Inventory(self._api, settings.region, settings.poll_seconds)

    def capabilities(self) -> Capabilities:
        return Capabilities(bootable=True, poll_seconds=self._settings.poll_seconds)

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

    def create_volume(self, labels: Labels, spec: VolumeSpec) -> Resource:
        return self._volume(labels, spec, snapshot_id=None)

    def clone(self, snapshot: Resource, labels: Labels, spec: VolumeSpec) -> Resource:
        return self._volume(labels, spec, snapshot_id=snapshot.id)

    def _volume(self, labels: Labels, spec: VolumeSpec, snapshot_id: str | None) -> Resource:
        def create(token: str, name: str) -> str:
            request = models.CreateDiskRequest(
                region_id=self._settings.region,
                zone_id=self._settings.zone,
                disk_name=name,
                size=spec.size_gib,
                disk_category=spec.category,
                performance_level=spec.performance_level,
                snapshot_id=snapshot_id,
                client_token=token,
                tag=tagged(models.CreateDiskRequestTag, labels),
            )
            return str(self._api.call("create_disk", request)["DiskId"])

        return self._inventory.settled(self._inventory.once(Kind.VOLUME, labels, create))

    def snapshot(self, volume_id: str, labels: Labels) -> Resource:
        def create(token: str, name: str) -> str:
            request = models.CreateSnapshotRequest(
                disk_id=volume_id,
                snapshot_name=name,
                client_token=token,
                tag=tagged(models.CreateSnapshotRequestTag, labels),
            )
            return str(self._api.call("create_snapshot", request)["SnapshotId"])

        return self._inventory.once(Kind.SNAPSHOT, labels, create)

    def create_image(self, labels: Labels, snapshots: Sequence[Resource]) -> Resource:
        mapping = [
            models.CreateImageRequestDiskDeviceMapping(
                device=f"/dev/xvd{chr(ord('a') + index)}",
                disk_type="data" if index else "system",
                snapshot_id=snapshot.id,
                size=snapshot.size_gib or None,
            )
            for index, snapshot in enumerate(snapshots)
        ]

        def create(token: str, name: str) -> str:
            request = models.CreateImageRequest(
                region_id=self._settings.region,
                image_name=name,
                architecture="x86_64",
                boot_mode="BIOS",
                platform="Others Linux",
                disk_device_mapping=mapping,
                client_token=token,
                tag=tagged(models.CreateImageRequestTag, labels),
            )
            return str(self._api.call("create_image", request)["ImageId"])

        return self._inventory.once(Kind.IMAGE, labels, create)

    def run_instance(self, labels: Labels, spec: InstanceSpec) -> Resource:
        return self._instance(labels, spec, user_data=None)

    def ensure_gateway(self, labels: Labels, vswitch: str) -> Resource:
        settings = self._settings.gateway
        spec = InstanceSpec(
            image_id=settings.image,
            instance_type=settings.instance_type,
            vswitch=vswitch,
            security_group=settings.security_group,
            disk_category="cloud_essd",
            system_gib=40,
            public_ip=True,
        )
        key = gateway_key(settings.secret, labels.run)
        tls, _ = gateway_identity(settings.secret, labels.run)
        script = gateway_user_data(command=settings.command, key=key, tls=tls, port=settings.port)
        return self._inventory.settled(self._instance(labels, spec, user_data=script))

    def _instance(self, labels: Labels, spec: InstanceSpec, user_data: str | None) -> Resource:
        group = self._inventory.security_group(spec.security_group)

        def create(token: str, name: str) -> str:
            request = models.RunInstancesRequest(
                region_id=self._settings.region,
                zone_id=self._settings.zone,
                image_id=spec.image_id,
                instance_type=spec.instance_type,
                instance_name=name,
                v_switch_id=spec.vswitch,
                security_group_id=group,
                internet_max_bandwidth_out=_PUBLIC_BANDWIDTH_MBIT if spec.public_ip else 0,
                system_disk=models.RunInstancesRequestSystemDisk(
                    category=spec.disk_category,
                    size=str(spec.system_gib),
                    performance_level=spec.performance_level,
                ),
                user_data=base64.b64encode(user_data.encode()).decode() if user_data else None,
                amount=1,
                client_token=token,
                tag=tagged(models.RunInstancesRequestTag, labels),
            )
            ids = self._api.call("run_instances", request)["InstanceIdSets"]["InstanceIdSet"]
            return str(ids[0])

        return self._inventory.once(Kind.INSTANCE, labels, create)

    def gateway_url(self, gateway: Resource) -> str:
        return f"https://{gateway.address}:{self._settings.gateway.port}"

    def gateway_fingerprint(self, labels: Labels) -> str:
        return gateway_identity(self._settings.gateway.secret, labels.run)[1]

    def gateway_token(self, labels: Labels) -> str:
        return self._token(labels, "control", [])

    def sink(self, volume_id: str, labels: Labels, generation: int) -> SinkDescriptor:
        gateways = self.list(Labels(labels.wave, labels.migration, labels.run, Role.GATEWAY), Kind.INSTANCE)
        if not gateways:
            raise NotFound(f"Run {labels.run} has no gateway instance.", "Clear the provision task and run it again.")
        return SinkDescriptor(
            kind="gateway",
            url=self.gateway_url(gateways[0]),
            fingerprint=self.gateway_fingerprint(labels),
            volume=volume_id,
            generation=generation,
            token=self._token(labels, "write", [volume_id]),
        )

    def _token(self, labels: Labels, scope: tokens.Scope, volumes: Sequence[str]) -> str:
        key = gateway_key(self._settings.gateway.secret, labels.run)
        return tokens.issue(
            key,
            migration=f"{labels.wave}-{labels.migration}-{labels.run}",
            scope=scope,
            volumes=list(volumes),
            lifetime=_TOKEN_LIFETIME_SECONDS,
        )

    def attach(self, volume_id: str, instance_id: str) -> None:
        volume = self._inventory.settled(self.get(Kind.VOLUME, volume_id))
        if volume.attached_to == instance_id and volume.status == "In_use":
            return
        if volume.attached_to:
            raise Conflict(
                f"Volume {volume_id} is attached to {volume.attached_to}, not to {instance_id}.",
                "Detach it in the cloud's console, or let cleanup of the other run finish.",
            )
        request = models.AttachDiskRequest(disk_id=volume_id, instance_id=instance_id, delete_with_instance=False)
        try:
            self._api.call("attach_disk", request)
        except Conflict:
            # The reply to an earlier attempt may have been lost: then it is what was asked for, done or under way.
            if not self._inventory.becomes(Kind.VOLUME, volume_id, lambda v: v.attached_to == instance_id):
                raise
        self._inventory.until(Kind.VOLUME, volume_id, _attaching(instance_id), "attached")

    def detach(self, volume_id: str) -> None:
        volume = self._inventory.settled(self.get(Kind.VOLUME, volume_id))
        if volume.attached_to:
            request = models.DetachDiskRequest(disk_id=volume_id, instance_id=volume.attached_to)
            try:
                self._api.call("detach_disk", request)
            except Conflict:
                if not self._inventory.becomes(Kind.VOLUME, volume_id, _let_go):
                    raise
            self._inventory.until(Kind.VOLUME, volume_id, lambda v: v.status == "Available", "detached")

    def console(self, instance_id: str) -> str:
        request = models.GetInstanceConsoleOutputRequest(region_id=self._settings.region, instance_id=instance_id)
        encoded = self._api.call("get_instance_console_output", request).get("ConsoleOutput") or ""
        return base64.b64decode(encoded).decode("utf-8", errors="replace")

    def screenshot(self, instance_id: str) -> bytes:
        request = models.GetInstanceScreenshotRequest(region_id=self._settings.region, instance_id=instance_id)
        jpeg = base64.b64decode(self._api.call("get_instance_screenshot", request)["Screenshot"])
        png = io.BytesIO()
        Image.open(io.BytesIO(jpeg)).save(png, "PNG")
        return png.getvalue()

    def get(self, kind: Kind, resource_id: str) -> Resource:
        return self._inventory.get(kind, resource_id)

    def list(self, labels: Labels, kind: Kind | None = None) -> list[Resource]:
        return self._inventory.list(labels, kind)

    def delete(self, resource: Resource) -> None:
        region = self._settings.region
        try:
            if resource.kind is Kind.INSTANCE:
                self._delete_instance(resource.id)
            elif resource.kind is Kind.VOLUME:
                self.detach(resource.id)
                self._api.call("delete_disk", models.DeleteDiskRequest(disk_id=resource.id))
            elif resource.kind is Kind.SNAPSHOT:
                self._api.call("delete_snapshot", models.DeleteSnapshotRequest(snapshot_id=resource.id, force=True))
            else:
                self._api.call(
                    "delete_image",
                    models.DeleteImageRequest(region_id=region, image_id=resource.id, force=True),
                )
        except NotFound:
            return

    def _delete_instance(self, instance_id: str) -> None:
        """Refused while it starts, and when the reply to an earlier attempt was lost: then it goes by itself."""
        request = models.DeleteInstanceRequest(instance_id=instance_id, force=True)
        deadline = time.monotonic() + _DELETE_SECONDS
        while True:
            try:
                self._api.call("delete_instance", request)
                return
            except Conflict:
                if time.monotonic() > deadline:
                    raise
            time.sleep(min(1.0, self._settings.poll_seconds))


def _attaching(instance_id: str) -> Callable[[Resource], bool]:
    """Is it attached? Raises Unavailable once it was under way and fell back."""
    began = False

    def reached(volume: Resource) -> bool:
        nonlocal began
        if began and not volume.attached_to:
            raise Unavailable(
                f"The cloud did not succeed in attaching volume {volume.id} to {instance_id}.",
                "The task may simply be retried.",
            )
        began = began or volume.attached_to == instance_id
        return volume.status == "In_use"

    return reached


def _let_go(volume: Resource) -> bool:
    return not volume.attached_to or volume.status == "Detaching"
