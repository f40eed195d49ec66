"""The gateway instance beside the volumes: made once per run, with the URL, certificate and tokens that go with it."""

from __future__ import annotations

from collections.abc import Sequence

from storage_backends.alibaba_images import Images
from storage_backends.alibaba_inventory import Inventory
from storage_backends.base import InstanceSpec, Kind, Labels, Resource, Role
from storage_backends.errors import NotFound
from storage_backends.gateway_boot import gateway_identity, gateway_key, gateway_user_data
from storage_backends.settings import GatewaySettings
from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.service import tokens

_TOKEN_LIFETIME_SECONDS = 6 * 3600


class Gateways:
    def __init__(self, settings: GatewaySettings, images: Images, inventory: Inventory) -> None:
        self._settings = settings
        self._images = images
        self._inventory = inventory

    def ensure(self, labels: Labels, vswitch: str) -> Resource:
        settings = self._settings
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
        return self._inventory.settled(self._images.run_instance(labels, spec, user_data=script))

    def url(self, gateway: Resource) -> str:
        return f"https://{gateway.address}:{self._settings.port}"

    def fingerprint(self, labels: Labels) -> str:
        return gateway_identity(self._settings.secret, labels.run)[1]

    def token(self, labels: Labels) -> str:
        return self._token(labels, "control", [])

    def sink(self, volume_id: str, labels: Labels, generation: int) -> SinkDescriptor:
        gateways = self._inventory.list(Labels(labels.wave, labels.migration, labels.run, Role.GATEWAY), Kind.INSTANCE)
        if not gateways:
            raise NotFound(f"Run {labels.run} has no gateway instance.", "Clear the provision task and run it again.")
        return SinkDescriptor(
            kind="gateway",
            url=self.url(gateways[0]),
            fingerprint=self.fingerprint(labels),
            volume=volume_id,
            generation=generation,
            token=self._token(labels, "write", [volume_id]),
        )

    def _token(self, labels: Labels, scope: tokens.Scope, volumes: Sequence[str]) -> str:
        key = gateway_key(self._settings.secret, labels.run)
        return tokens.issue(
            key,
            migration=f"{labels.wave}-{labels.migration}-{labels.run}",
            scope=scope,
            volumes=list(volumes),
            lifetime=_TOKEN_LIFETIME_SECONDS,
        )
