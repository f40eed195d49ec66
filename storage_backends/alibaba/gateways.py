"""Gateway instances beside the volumes: shared, replaced when they die, removed once nobody uses them.

A gateway's labels name it: a wave run's, and its number in there. Whoever uses one leaves a mark on it, a tag of his
own, and looks at it again afterwards; whoever removes one marks that first, and looks for users again afterwards. So
one of the two sees the other in time, whatever the order (docs/decisions/0020-shared-gateways.md).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from alibabacloud_ecs20140526 import models

from storage_backends.alibaba.ecs import EcsApi
from storage_backends.alibaba.gateway_boot import gateway_identity, gateway_key, gateway_user_data
from storage_backends.alibaba.images import Images
from storage_backends.alibaba.inventory import Inventory
from storage_backends.alibaba.settings import AlibabaSettings
from storage_backends.base import TAG_PREFIX, GatewayAccess, InstanceSpec, Kind, Labels, Resource, Role, State
from storage_backends.errors import NotFound
from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.service import tokens

_TOKEN_LIFETIME_SECONDS = 6 * 3600
_RELEASE_SECONDS = 120.0
# Longer than a removal takes: who began one that is older has died over it.
_RETIRING_SECONDS = 300.0
# A mark without a volume counts so long: its migration is about to make them.
_FRESH_SECONDS = 3600.0
_USER = f"{TAG_PREFIX}user:"
_RETIRING = f"{TAG_PREFIX}retiring"
# What a gateway needs beside its disks (the system, a guest being prepared), and what the packs of a disk under way do.
_BASE_GIB = 2.0
_DISK_GIB = 0.25


class Gateways:
    def __init__(self, settings: AlibabaSettings, api: EcsApi, images: Images, inventory: Inventory) -> None:
        self._region = settings.region
        self._poll_seconds = settings.poll_seconds
        self._settings = settings.gateway
        self._api = api
        self._images = images
        self._inventory = inventory

    def ensure(self, labels: Labels, vswitch: str, disks: int) -> Resource:
        """The running one of these labels. One that has stopped is replaced, and its users are the new one's."""
        users: dict[str, str] = {}
        while True:
            for found in self._inventory.list(labels, Kind.INSTANCE):
                gateway = self._settled(found)
                if gateway is not None and gateway.state is State.READY:
                    return gateway
                if gateway is not None:
                    users |= _marks(gateway)
                    self.remove(gateway)
            made = self._settled(self._run(labels, vswitch, disks))
            if made is not None:
                if users:
                    self._tag(made.id, users)
                return made

    def _settled(self, gateway: Resource) -> Resource | None:
        """None where it is gone: somebody removes it at this moment."""
        try:
            return self._inventory.settled(gateway)
        except NotFound:
            return None

    def _run(self, labels: Labels, vswitch: str, disks: int) -> Resource:
        settings = self._settings
        spec = InstanceSpec(
            image_id=settings.image,
            instance_type=self._instance_type(disks),
            vswitch=vswitch,
            security_group=settings.security_group,
            disk_category="cloud_essd",
            system_gib=40,
            public_ip=True,
        )
        key = gateway_key(settings.secret, labels.run)
        tls, _ = gateway_identity(settings.secret, labels.run)
        script = gateway_user_data(command=settings.command, key=key, tls=tls, port=settings.port)
        return self._images.run_instance(labels, spec, user_data=script)

    def use(self, labels: Labels, vswitch: str, disks: int, user: Labels) -> Resource:
        """The same, with a mark of the migration run that uses it: it is not removed before that run has left it."""
        while True:
            gateway = self.ensure(labels, vswitch, disks)
            try:
                if _mark(user) not in gateway.tags:
                    self._tag(gateway.id, {_mark(user): f"{user.migration} {int(time.time())}"})
                    gateway = self._inventory.get(Kind.INSTANCE, gateway.id)
                if _RETIRING not in gateway.tags:
                    return gateway
                self._untag(gateway.id, [_mark(user)])
            except NotFound:
                continue
            if time.time() - float(gateway.tags[_RETIRING]) > _RETIRING_SECONDS:
                self.remove(gateway)
            time.sleep(min(1.0, self._poll_seconds))

    def leave(self, gateway: Resource, user: Labels) -> bool:
        """Takes the user's mark off; true where nobody uses the gateway any more, and it was removed."""
        try:
            self._untag(gateway.id, [_mark(user)])
            if self._users(self._inventory.get(Kind.INSTANCE, gateway.id)):
                return False
            self._tag(gateway.id, {_RETIRING: f"{int(time.time())}"})
            if self._users(self._inventory.get(Kind.INSTANCE, gateway.id)):
                self._untag(gateway.id, [_RETIRING])
                return False
        except NotFound:
            return True
        self.remove(gateway)
        return True

    def used_by(self, labels: Labels, user: Labels) -> list[Resource]:
        """Those of the gateways that carry these labels which the user has marked."""
        found = self._inventory.list(labels, Kind.INSTANCE)
        return sorted((each for each in found if _mark(user) in each.tags), key=lambda each: each.tag("number"))

    def of(self, volume_id: str) -> Resource:
        """The one that a volume is attached to. Raises NotFound."""
        volume = self._inventory.get(Kind.VOLUME, volume_id)
        if volume.attached_to:
            instance = self._inventory.get(Kind.INSTANCE, volume.attached_to)
            if instance.tag("role") == Role.GATEWAY:
                return instance
        raise NotFound(f"Volume {volume_id} is attached to no gateway.", "Clear the provision task and run it again.")

    def access(self, gateway: Resource, labels: Labels) -> GatewayAccess:
        return GatewayAccess(
            url=f"https://{gateway.address}:{self._settings.port}",
            token=self._token(gateway, labels, "control", []),
            fingerprint=gateway_identity(self._settings.secret, gateway.tag("run"))[1],
        )

    def sink(self, volume_id: str, labels: Labels, generation: int) -> SinkDescriptor:
        gateway = self.of(volume_id)
        access = self.access(gateway, labels)
        return SinkDescriptor(
            kind="gateway",
            url=access.url,
            fingerprint=access.fingerprint,
            volume=volume_id,
            generation=generation,
            token=self._token(gateway, labels, "write", [volume_id]),
        )

    def _token(self, gateway: Resource, labels: Labels, scope: tokens.Scope, volumes: Sequence[str]) -> str:
        return tokens.issue(
            gateway_key(self._settings.secret, gateway.tag("run")),
            migration=f"{labels.wave}-{labels.migration}-{labels.run}",
            scope=scope,
            volumes=list(volumes),
            lifetime=_TOKEN_LIFETIME_SECONDS,
        )

    def _instance_type(self, disks: int) -> str:
        """The first of the types in the connection that has the memory, else the largest."""
        names = self._settings.instance_types
        if len(names) == 1:
            return names[0]
        request = models.DescribeInstanceTypesRequest(instance_types=list(names))
        types = self._api.call("describe_instance_types", request)["InstanceTypes"]["InstanceType"]
        memory = {each["InstanceTypeId"]: float(each["MemorySize"]) for each in types}
        enough = [name for name in names if memory.get(name, 0.0) >= _BASE_GIB + _DISK_GIB * disks]
        return enough[0] if enough else max(names, key=lambda name: memory.get(name, 0.0))

    def _users(self, gateway: Resource) -> list[str]:
        """Marks that count: new ones, and those of runs that have volumes."""
        counting = []
        for mark, value in _marks(gateway).items():
            migration, _, since = value.rpartition(" ")
            run = Labels(gateway.tag("wave"), migration, mark.removeprefix(_USER))
            if time.time() - float(since) < _FRESH_SECONDS or self._inventory.list(run, Kind.VOLUME):
                counting.append(mark)
        return counting

    def remove(self, gateway: Resource) -> None:
        """Its volumes are free afterwards."""
        try:
            self._images.delete_instance(gateway.id)
            self._inventory.until(Kind.INSTANCE, gateway.id, lambda _: False, "released", _RELEASE_SECONDS)
        except NotFound:
            return

    def _tag(self, instance_id: str, tags: Mapping[str, str]) -> None:
        request = models.TagResourcesRequest(
            region_id=self._region,
            resource_type="instance",
            resource_id=[instance_id],
            tag=[models.TagResourcesRequestTag(key=key, value=value) for key, value in tags.items()],
        )
        self._api.call("tag_resources", request)

    def _untag(self, instance_id: str, keys: Sequence[str]) -> None:
        request = models.UntagResourcesRequest(
            region_id=self._region, resource_type="instance", resource_id=[instance_id], tag_key=list(keys)
        )
        self._api.call("untag_resources", request)


def _mark(user: Labels) -> str:
    return f"{_USER}{user.run}"


def _marks(gateway: Resource) -> dict[str, str]:
    return {key: value for key, value in gateway.tags.items() if key.startswith(_USER)}
