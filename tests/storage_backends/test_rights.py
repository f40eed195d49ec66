"""docs/ram-policy.json is what the backend needs, and no more: enforced by the local cloud, counted call by call."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_credentials.provider import StaticAKCredentialsProvider

from storage_backends.alibaba import inventory
from storage_backends.alibaba.backend import AlibabaBackend
from storage_backends.alibaba.credentials import AssumedRole
from storage_backends.alibaba.ecs import EcsApi
from storage_backends.alibaba.settings import Access
from storage_backends.base import Kind, Labels, Role, VolumeSpec
from storage_backends.errors import BackendError, Denied
from tests.localcloud.conftest import KEY, REGION, SECRET
from tests.storage_backends.conftest import HOST, SMALL, World, gone, ready
from wavelift.localcloud.accounts import ACCOUNT

Run = Callable[..., Labels]
POLICY = json.loads((Path(__file__).parents[2] / "docs" / "ram-policy.json").read_text())
ALLOWED = {action.removeprefix("ecs:") for statement in POLICY["Statement"] for action in statement["Action"]}
VSWITCH = "vsw-local-a"


def limited(world: World, policy: dict[str, Any], **extra: Any) -> AlibabaBackend:
    """As a role with that policy and no other right. STS takes policies of 2048 characters."""
    access = Access(role_arn=f"acs:ram::{ACCOUNT}:role/wavelift", sts_endpoint=world.cloud.endpoint, protocol="http")
    source = StaticAKCredentialsProvider(access_key_id=KEY, access_key_secret=SECRET)
    key = AssumedRole(source, access, REGION, json.dumps(policy, separators=(",", ":"))).get_credentials()
    made: AlibabaBackend = world.backend(
        login=key.get_access_key_id(),
        password=key.get_access_key_secret(),
        security_token=key.get_security_token(),
        **extra,
    )
    return made


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Every action that a backend calls."""
    names: set[str] = set()
    call = EcsApi.call

    def noted(self: EcsApi, action: str, request: Any) -> dict[str, Any]:
        names.add(type(request).__name__.removesuffix("Request"))
        return call(self, action, request)

    monkeypatch.setattr(EcsApi, "call", noted)
    return names


def everything(backend: AlibabaBackend, run: Run) -> None:
    """All that a migration asks of the backend, with both ways to make a machine."""
    migration = run()
    pool = Labels("wave", "all", uuid.uuid4().hex[:8], Role.GATEWAY, number=1)
    backend.check_access()
    backend.check_target(dataclasses.replace(HOST, instance_type="ecs.none.large"), [SMALL])
    gateway = backend.use_gateway(pool, VSWITCH, 4, migration)
    replica = backend.create_volume(run(Role.REPLICA, "data"), SMALL)
    backend.attach(replica.id, gateway.id)
    backend.resize(replica.id, 2)
    backend.sink(replica.id, migration, 1)
    first, second = (ready(backend, backend.snapshot(replica.id, run(Role.REPLICA, "data", n))) for n in (1, 2))
    backend.detach(replica.id)
    clone = backend.clone(second, run(Role.CLONE, "data", 2), VolumeSpec(2, SMALL.category, SMALL.performance_level))
    assert [each.id for each in backend.prune_snapshots(run(Role.REPLICA), 1)] == [first.id]
    backend.image_strategy()
    image = ready(backend, backend.create_image(run(Role.PREPARED, generation=2), [second]))
    target = ready(backend, backend.run_instance(run(Role.TARGET), HOST))
    backend.console(target.id)
    with pytest.raises(BackendError, match="no screen"):
        backend.screenshot(gateway.id)
    donor = backend.create_donor(run(Role.TARGET, "donor"), dataclasses.replace(HOST, public_ip=True))
    system = backend.donor_disk(donor, run(Role.TARGET, "donor"))
    assert [each.id for each in backend.disks_of(donor.id)] == [system.id]
    backend.mark(donor, "generation", "2")
    backend.attach(clone.id, donor.id)
    backend.give(clone.id)
    backend.mark(clone, "role", Role.TARGET)
    backend.start_instance(donor.id)
    backend.leave_gateway(gateway, migration)
    for resource in (ready(backend, donor), target, image, second, replica):
        backend.delete(resource)
        gone(backend, resource)
    assert backend.list(migration) == []


def test_the_policy_allows_what_is_called_and_nothing_else(
    world: World, run: Run, called: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "_APPEAR_SECONDS", 1.0)
    everything(limited(world, POLICY, donor_image="host-linux", gateway_instance_type="ecs.c7.large,ecs.g7.large"), run)
    assert called == ALLOWED


def test_what_the_policy_does_not_allow_is_denied(world: World, run: Run) -> None:
    statements = [
        {**statement, "Action": [each for each in statement["Action"] if each != "ecs:DeleteDisk"]}
        for statement in POLICY["Statement"]
    ]
    backend = limited(world, {**POLICY, "Statement": statements})
    volume = backend.create_volume(run(Role.REPLICA, "x"), SMALL)
    with pytest.raises(Denied, match=r"delete_disk .*Forbidden\.RAM"):
        backend.delete(volume)
    assert world.count(Kind.VOLUME, run()) == 1
