"""A local cloud and the alibaba backend pointed at it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from storage_backends.alibaba.backend import AlibabaBackend
from storage_backends.base import InstanceSpec, Kind, Labels, Resource, Role, State, VolumeSpec
from storage_backends.registry import open_backend
from tests.localcloud.conftest import KEY, REGION, SECRET, ZONE, Ecs
from wavelift.localcloud.model.context import Options
from wavelift.localcloud.server import LocalCloud

GATEWAY_SECRET = "the-root-of-every-gateway-key-of-these-tests"
HOST = InstanceSpec(
    image_id="host-linux",
    instance_type="ecs.c7.large",
    vswitch="vsw-local-a",
    security_group="sg-local-default",
    disk_category="cloud_essd",
    performance_level="PL0",
    system_gib=1,
)
SMALL = VolumeSpec(size_gib=1, category="cloud_essd", performance_level="PL0")


@dataclass
class World:
    """The cloud, its state folder, the SDK to count with, and backends as a connection describes them."""

    cloud: LocalCloud
    state: Path
    ecs: Ecs
    extra: dict[str, Any]

    def backend(
        self, *, login: str = KEY, password: str = SECRET, region: str = REGION, zone: str = ZONE, **extra: Any
    ) -> Any:
        return open_backend(
            "alibaba",
            connection_id="wavelift_cloud",
            login=login,
            password=password,
            extra={**self.extra, **extra},
            region=region,
            zone=zone,
        )

    def count(self, kind: Kind, labels: Labels) -> int:
        """How many there are, asked of the SDK rather than of the backend."""
        fields: dict[str, Any] = {"tags": labels.tags()}
        if kind is Kind.IMAGE:
            fields["status"] = "Creating,Available,CreateFailed"
        action = {
            Kind.VOLUME: "describe_disks",
            Kind.SNAPSHOT: "describe_snapshots",
            Kind.IMAGE: "describe_images",
            Kind.INSTANCE: "describe_instances",
        }[kind]
        return int(self.ecs.call(action, **fields)["TotalCount"])


def ready(backend: AlibabaBackend, resource: Resource) -> Resource:
    """The same thing once it is no longer pending."""
    deadline = time.monotonic() + 20
    while (now := backend.get(resource.kind, resource.id)).state is State.PENDING:
        assert time.monotonic() < deadline, now
        time.sleep(0.05)
    return now


def gone(backend: AlibabaBackend, resource: Resource) -> None:
    deadline = time.monotonic() + 20
    while any(each.id == resource.id for each in backend.list(labels_of(resource), resource.kind)):
        assert time.monotonic() < deadline, resource
        time.sleep(0.05)


def labels_of(resource: Resource) -> Labels:
    return Labels(resource.tag("wave"), resource.tag("migration"), resource.tag("run"))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    state = tmp_path_factory.mktemp("cloud")
    command = tmp_path_factory.mktemp("bin") / "gateway"
    command.write_text("#!/bin/sh\necho started as $1\nexec sleep 600\n")
    command.chmod(0o755)
    with LocalCloud(state, {KEY: SECRET}, Options(host_instances=True, grace=1.0)) as cloud:
        extra = {
            "endpoint": cloud.endpoint,
            "protocol": "http",
            "region": REGION,
            "zone": ZONE,
            "poll_seconds": 0.2,
            "gateway_image": "host-linux",
            "gateway_instance_type": "ecs.g7.large",
            "gateway_security_group": "sg-local-default",
            "gateway_secret": GATEWAY_SECRET,
            "gateway_command": str(command),
        }
        yield World(cloud, state, Ecs(cloud.endpoint), extra)


@pytest.fixture
def backend(world: World) -> AlibabaBackend:
    made: AlibabaBackend = world.backend()
    return made


@pytest.fixture
def run() -> Callable[..., Labels]:
    """Labels of a run that no other test has."""
    name = uuid.uuid4().hex[:8]

    def labels(role: Role | None = None, disk: str | None = None, generation: int | None = None) -> Labels:
        return Labels("wave", "web", name, role, disk, generation)

    return labels


@pytest.fixture(scope="session")
def gateway(world: World) -> Resource:
    """One running gateway instance that tests attach volumes to."""
    labels = Labels("shared", "gateway", uuid.uuid4().hex[:8], Role.GATEWAY)
    made: Resource = world.backend().ensure_gateway(labels, "vsw-local-a")
    return made


@pytest.fixture
def used_volume(backend: AlibabaBackend, gateway: Resource, run: Callable[..., Labels]) -> Resource:
    """A volume that was attached once: ECS refuses snapshots of others."""
    volume = backend.create_volume(run(Role.REPLICA, "data"), SMALL)
    backend.attach(volume.id, gateway.id)
    backend.detach(volume.id)
    return backend.get(Kind.VOLUME, volume.id)
