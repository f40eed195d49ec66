"""The donor strategy, step by step, by the real SDK, a real gateway and an account that may make no image of data
disks: what the donor ends up with, and what a process killed after each single thing it did leaves to the next."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from operators import cleanup, step, triggers
from operators.boot_verify import _instance
from operators.cleanup import CleanupOperator
from operators.image import ImageOperator
from operators.run import MigrationRun
from storage_backends.alibaba import ecs, inventory
from storage_backends.base import ImageStrategy, Kind, Resource, Role, State, VolumeSpec
from tests.localcloud.conftest import Ecs
from tests.operators.clouds import (
    MANIFEST,
    connection,
    donor_image,
    execute,
    file_of,
    real_gateways,
    run_context,
    settled,
)
from tests.operators.conftest import Comms
from wavelift.localcloud.server import LocalCloud

MIB = 1 << 20
SMALL = VolumeSpec(20, "cloud_essd", "PL0")
READS = ("describe_", "get_", "list_")


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCloud, Path, str]]:
    state = tmp_path_factory.mktemp("strict")
    with real_gateways(state, data_snapshot_images=False) as cloud:
        yield cloud, state, donor_image(cloud)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, comms: Comms) -> None:
    monkeypatch.setattr(inventory, "_APPEAR_SECONDS", 0.3)
    monkeypatch.setattr(cleanup, "_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(triggers.WaitTrigger, "delay", 0.05)
    monkeypatch.setattr(triggers, "JOB_POLL_SECONDS", 0.05)
    monkeypatch.setattr(step, "_PATIENCE_SECONDS", 2.0)


@pytest.fixture
def prepared(
    strict: tuple[LocalCloud, Path, str], quick: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A run whose clones of generation 1 are prepared and detached."""
    cloud, state, image = strict
    monkeypatch.setenv("AIRFLOW_CONN_WAVELIFT_CLOUD", connection(cloud, donor_image=image))
    context = run_context("migrate__demo__web", request.node.name, verified=True)
    run = MigrationRun.of(MANIFEST, MANIFEST.migrations[0], context)  # type: ignore[arg-type]
    backend = run.backend()
    gateway = backend.use_gateway(run.gateway_labels(1), "vsw-local-a", 4, run.labels())
    content = {}
    for disk in run.disks:
        made = {}
        for role in (Role.REPLICA, Role.CLONE):
            labels = run.labels(role, disk.id, 1 if role is Role.CLONE else None)
            made[role] = backend.create_volume(labels, SMALL)
            backend.attach(made[role].id, gateway.id)
        backend.snapshot(made[Role.REPLICA].id, run.labels(Role.REPLICA, disk.id, 1))
        backend.detach(made[Role.CLONE].id)
        content[disk.id] = os.urandom(2 * MIB)
        with file_of(state, made[Role.CLONE].id).open("r+b") as file:
            file.seek(3 * MIB)
            file.write(content[disk.id])
    settled(run, backend, Kind.SNAPSHOT)
    return SimpleNamespace(cloud=cloud, state=state, run=run, backend=backend, content=content, context=context)


def holds(made: Any, volume: Resource, disk: str) -> bool:
    with file_of(made.state, volume.id).open("rb") as file:
        begin, found, after = file.read(3 * MIB), file.read(2 * MIB), file.read(MIB)
    return begin == bytes(3 * MIB) and found == made.content[disk] and after == bytes(MIB)


def check(made: Any, result: dict[str, Any]) -> None:
    """One stopped instance with both disks, an image as the manifest keeps one, and nothing else but the replicas."""
    run, backend = made.run, made.backend
    assert result["strategy"] == "donor" and result["generation"] == 1
    (instance,) = backend.list(run.labels(Role.TARGET, generation=1), Kind.INSTANCE)
    assert (instance.id, instance.state) == (result["instance"], State.STOPPED)
    disks = backend.disks_of(instance.id)
    assert [holds(made, disk, name) for disk, name in zip(disks, ("system", "data"), strict=True)] == [True, True]
    raw = Ecs(made.cloud.endpoint).call("describe_disks", instance_id=instance.id)["Disks"]["Disk"]
    assert sorted((disk["Type"], disk["DeleteWithInstance"]) for disk in raw) == [("data", True), ("system", True)]
    (image,) = backend.list(run.labels(Role.PREPARED), Kind.IMAGE)
    assert image.id == result["image"]
    snapshots = {each.tag("disk"): each for each in backend.list(run.labels(Role.PREPARED), Kind.SNAPSHOT)}
    assert {name: each.id for name, each in snapshots.items()} == result["snapshots"]
    assert all(holds(made, snapshot, name) for name, snapshot in snapshots.items())
    assert {each.tag("role") for each in backend.list(run.labels(), Kind.VOLUME)} == {"replica"}
    # What the last step takes up is the donor itself, with its address.
    assert _instance(run, backend, 1).id == instance.id and instance.address.startswith("127.")


def test_the_account_decides_and_the_donor_holds_the_machine(prepared: Any) -> None:
    run, backend = prepared.run, prepared.backend
    assert backend.image_strategy() is ImageStrategy.DONOR
    result = execute(ImageOperator, MANIFEST, prepared.context)
    check(prepared, result)
    assert execute(ImageOperator, MANIFEST, prepared.context) == result
    kept = execute(CleanupOperator, MANIFEST, prepared.context)["kept"]
    assert sorted(each["kind"] for each in kept) == [
        "image",
        "instance",
        "snapshot",
        "snapshot",
        "snapshot",
        "snapshot",
    ]
    assert len(backend.disks_of(result["instance"])) == 2
    assert backend.list(run.gateway_labels(), Kind.INSTANCE) == []


class Killed(BaseException):
    """The process that did it is gone."""


def test_a_process_killed_after_each_thing_it_did_leaves_a_run_that_ends_the_same(
    prepared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    call: Callable[..., Any] = ecs.EcsApi.call
    done: list[str] = []

    def killed_after(self: Any, action: str, request: Any) -> Any:
        answer = call(self, action, request)
        if not action.startswith(READS) and not getattr(request, "dry_run", None):
            done.append(action)
            raise Killed
        return answer

    result = None
    with monkeypatch.context() as patched:
        patched.setattr(ecs.EcsApi, "call", killed_after)
        while result is None:
            before = len(done)
            try:
                result = execute(ImageOperator, MANIFEST, prepared.context)
            except Killed:
                assert len(done) == before + 1 and before < 60
    assert {"create_instance", "allocate_public_ip_address", "detach_disk", "attach_disk", "tag_resources"} <= set(done)
    assert {"create_snapshot", "create_image", "modify_disk_attribute", "delete_disk"} <= set(done)
    check(prepared, result)
    not_verified = {**prepared.context, "ti": SimpleNamespace(get_task_states=lambda **_: {})}
    execute(CleanupOperator, MANIFEST, not_verified)
    assert prepared.backend.list(prepared.run.labels()) == []
