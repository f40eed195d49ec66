"""Alibaba Cloud as a backend: EBS volumes attached to a gateway instance, snapshots, images and instances by ECS.

Source of every rule in the modules behind this one: the ECS API 2014-05-26.
"""

from __future__ import annotations

from collections.abc import Sequence

from alibabacloud_credentials.client import Client as CredentialsClient

from storage_backends.alibaba.credentials import AssumedRole, provider_of
from storage_backends.alibaba.donors import Donors
from storage_backends.alibaba.ecs import EcsApi
from storage_backends.alibaba.gateways import Gateways
from storage_backends.alibaba.images import Images
from storage_backends.alibaba.inventory import Inventory
from storage_backends.alibaba.offer import Offer
from storage_backends.alibaba.settings import AlibabaSettings
from storage_backends.alibaba.volumes import Volumes
from storage_backends.base import (
    Capabilities,
    Firmware,
    GatewayAccess,
    ImageStrategy,
    InstanceSpec,
    Kind,
    Labels,
    Resource,
    VolumeSpec,
)
from storage_backends.errors import NotFound
from wavelift.blocks.descriptor import SinkDescriptor


class AlibabaBackend:
    """One account, region and zone. Holds no state of its own: everything is found again by tags."""

    def __init__(self, settings: AlibabaSettings) -> None:
        provider = provider_of(settings.access, settings.region)
        renew = provider.renew if isinstance(provider, AssumedRole) else lambda: False
        credential = CredentialsClient(provider=provider)
        api = EcsApi(settings.access, settings.region, settings.endpoint, credential, renew)
        self._poll_seconds = settings.poll_seconds
        self._inventory = Inventory(api, settings.region, settings.poll_seconds)
        self._offer = Offer(settings, api, self._inventory)
        self._volumes = Volumes(settings, api, self._inventory)
        self._images = Images(settings, api, self._inventory)
        self._donors = Donors(settings, api, self._inventory)
        self._gateways = Gateways(settings, api, self._images, self._inventory)

    def capabilities(self) -> Capabilities:
        return Capabilities(bootable=True, poll_seconds=self._poll_seconds)

    def check_access(self) -> None:
        self._offer.check_access()

    def check_target(self, spec: InstanceSpec, volumes: Sequence[VolumeSpec] = ()) -> list[str]:
        return self._offer.check_target(spec, volumes) + self._donors.check()

    def create_volume(self, labels: Labels, spec: VolumeSpec) -> Resource:
        return self._volumes.create_volume(labels, spec)

    def clone(self, snapshot: Resource, labels: Labels, spec: VolumeSpec) -> Resource:
        return self._volumes.clone(snapshot, labels, spec)

    def snapshot(self, volume_id: str, labels: Labels) -> Resource:
        return self._volumes.snapshot(volume_id, labels)

    def prune_snapshots(self, labels: Labels, keep: int) -> list[Resource]:
        return self._volumes.prune_snapshots(labels, keep)

    def resize(self, volume_id: str, size_gib: int) -> Resource:
        return self._volumes.resize(volume_id, size_gib)

    def attach(self, volume_id: str, instance_id: str, *, bootable: bool = False) -> None:
        self._volumes.attach(volume_id, instance_id, bootable=bootable)

    def detach(self, volume_id: str) -> None:
        self._volumes.detach(volume_id)

    def create_image(
        self, labels: Labels, snapshots: Sequence[Resource], firmware: Firmware = Firmware.BIOS
    ) -> Resource:
        return self._images.create_image(labels, snapshots, firmware)

    def run_instance(self, labels: Labels, spec: InstanceSpec) -> Resource:
        return self._images.run_instance(labels, spec)

    def console(self, instance_id: str) -> str:
        return self._images.console(instance_id)

    def screenshot(self, instance_id: str) -> bytes:
        return self._images.screenshot(instance_id)

    def image_strategy(self) -> ImageStrategy | None:
        return self._donors.strategy()

    def create_donor(self, labels: Labels, spec: InstanceSpec) -> Resource:
        return self._donors.create(labels, spec)

    def donor_disk(self, donor: Resource, labels: Labels) -> Resource:
        return self._donors.disk(donor, labels)

    def disks_of(self, instance_id: str) -> list[Resource]:
        return self._donors.disks_of(instance_id)

    def give(self, volume_id: str) -> None:
        self._donors.give(volume_id)

    def mark(self, resource: Resource, name: str, value: str) -> None:
        self._donors.mark(resource, name, value)

    def start_instance(self, instance_id: str) -> None:
        self._donors.start(instance_id)

    def ensure_gateway(self, labels: Labels, vswitch: str, disks: int = 16) -> Resource:
        return self._gateways.ensure(labels, vswitch, disks)

    def use_gateway(self, labels: Labels, vswitch: str, disks: int, user: Labels) -> Resource:
        return self._gateways.use(labels, vswitch, disks, user)

    def leave_gateway(self, gateway: Resource, user: Labels) -> bool:
        return self._gateways.leave(gateway, user)

    def remove_gateway(self, gateway: Resource) -> None:
        self._gateways.remove(gateway)

    def gateways_used(self, labels: Labels, user: Labels) -> list[Resource]:
        return self._gateways.used_by(labels, user)

    def gateway_of(self, volume_id: str) -> Resource:
        return self._gateways.of(volume_id)

    def gateway_access(self, gateway: Resource, labels: Labels) -> GatewayAccess:
        return self._gateways.access(gateway, labels)

    def sink(self, volume_id: str, labels: Labels, generation: int) -> SinkDescriptor:
        return self._gateways.sink(volume_id, labels, generation)

    def get(self, kind: Kind, resource_id: str) -> Resource:
        return self._inventory.get(kind, resource_id)

    def delete(self, resource: Resource) -> None:
        delete = {
            Kind.INSTANCE: self._images.delete_instance,
            Kind.VOLUME: self._volumes.delete_volume,
            Kind.SNAPSHOT: self._volumes.delete_snapshot,
            Kind.IMAGE: self._images.delete_image,
        }[resource.kind]
        try:
            delete(resource.id)
        except NotFound:
            return

    def list(self, labels: Labels, kind: Kind | None = None) -> list[Resource]:
        return self._inventory.list(labels, kind)
