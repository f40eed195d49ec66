"""The alibaba backend on a cloud that misbehaves: what it waits out, what it names, and that nothing is made twice."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from storage_backends.alibaba import ecs, inventory
from storage_backends.alibaba.backend import AlibabaBackend
from storage_backends.base import Kind, Labels, Resource, Role, State
from storage_backends.errors import BackendError, Conflict, Denied, NotFound, QuotaExceeded, Unavailable
from tests.storage_backends.conftest import HOST, SMALL, World, gone, ready
from wavelift.localcloud.faults.calls import Faults
from wavelift.localcloud.faults.rules import Rule

Run = Callable[..., Labels]
Order = Callable[..., str]
PASSING: dict[str, dict[str, Any]] = {
    "throttled": {"kind": "throttle"},
    "throttled, with a time": {"kind": "throttle", "retry_after_ms": 20},
    "500": {"kind": "internal-error"},
    "503": {"kind": "unavailable"},
    "a proxy's 502": {"kind": "bad-gateway"},
    "reset": {"kind": "reset"},
    "done, but the reply is lost": {"kind": "drop-reply"},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecs, "_FIRST_PAUSE_SECONDS", 0.02)


@pytest.fixture
def faults(world: World) -> Iterator[Faults]:
    yield world.cloud.faults
    world.cloud.faults.reset()


@pytest.fixture
def order(faults: Faults) -> Order:
    def add(fault: dict[str, Any], **fields: Any) -> str:
        (rule,) = faults.add([Rule.model_validate({"fault": fault, **fields})])
        return rule.id

    return add


@pytest.fixture(scope="module")
def used_volume(world: World, gateway: Resource) -> Resource:
    """Made while all is well: a volume that was attached once."""
    backend = world.backend()
    volume: Resource = backend.create_volume(Labels("shared", "faults", uuid.uuid4().hex[:8], Role.REPLICA), SMALL)
    backend.attach(volume.id, gateway.id)
    backend.detach(volume.id)
    return volume


@pytest.fixture(scope="module")
def snapshot(world: World, used_volume: Resource) -> Resource:
    backend = world.backend()
    labels = Labels("shared", "faults", used_volume.tag("run"), Role.REPLICA, "data", 1)
    return ready(backend, backend.snapshot(used_volume.id, labels))


def makers(backend: AlibabaBackend, run: Run, volume: Resource, snapshot: Resource) -> list[Any]:
    """(action, kind, labels, maker) of everything that can be made."""
    replica, clone, second = run(Role.REPLICA, "x"), run(Role.CLONE, "x", 1), run(Role.REPLICA, "data", 2)
    prepared, target, gateway = run(Role.PREPARED, generation=1), run(Role.TARGET), run(Role.GATEWAY)
    return [
        ("CreateDisk", Kind.VOLUME, replica, lambda: backend.create_volume(replica, SMALL)),
        ("CreateDisk", Kind.VOLUME, clone, lambda: backend.clone(snapshot, clone, SMALL)),
        ("CreateSnapshot", Kind.SNAPSHOT, second, lambda: backend.snapshot(volume.id, second)),
        ("CreateImage", Kind.IMAGE, prepared, lambda: backend.create_image(prepared, [snapshot])),
        ("RunInstances", Kind.INSTANCE, target, lambda: backend.run_instance(target, HOST)),
        ("RunInstances", Kind.INSTANCE, gateway, lambda: backend.ensure_gateway(gateway, "vsw-local-a")),
    ]


@pytest.mark.parametrize("fault", PASSING.values(), ids=list(PASSING))
def test_whatever_passes_is_waited_out_and_everything_is_made_once(
    backend: AlibabaBackend,
    world: World,
    run: Run,
    used_volume: Resource,
    snapshot: Resource,
    faults: Faults,
    order: Order,
    fault: dict[str, Any],
) -> None:
    for action, kind, labels, make in makers(backend, run, used_volume, snapshot):
        rule = order(fault, action=action, times=2)
        made = make()
        assert faults.counter(rule).injected == 2, action
        faults.remove(rule)
        assert world.count(kind, labels) == 1, action
        assert made.tags == labels.tags() and backend.list(labels, kind)[0].id == made.id


@pytest.mark.parametrize("fault", PASSING.values(), ids=list(PASSING))
def test_whatever_passes_does_not_disturb_moving_and_deleting(
    backend: AlibabaBackend,
    world: World,
    run: Run,
    gateway: Resource,
    used_volume: Resource,
    faults: Faults,
    order: Order,
    fault: dict[str, Any],
) -> None:
    snapshot = ready(backend, backend.snapshot(used_volume.id, run(Role.REPLICA, "x", 1)))
    volume = backend.create_volume(run(Role.CLONE, "x"), SMALL)
    instance = backend.run_instance(run(Role.TARGET), HOST)
    image = ready(backend, backend.create_image(run(Role.PREPARED, generation=1), [snapshot]))
    ready(backend, instance)
    for action in ("Attach*", "Detach*", "Delete*"):
        order(fault, id=action.rstrip("*"), action=action, every=2)
        order(fault, id=f"{action.rstrip('*')}-first", action=action, calls=[1])
    backend.attach(volume.id, gateway.id)
    assert world.ecs.disk(volume.id)["InstanceId"] == gateway.id
    backend.detach(volume.id)
    for resource in (volume, image, snapshot, instance):
        backend.delete(resource)
        gone(backend, resource)
    assert {entry.action for entry in faults.log()} == {
        "AttachDisk",
        "DetachDisk",
        "DeleteDisk",
        "DeleteImage",
        "DeleteSnapshot",
        "DeleteInstance",
    }


def test_lists_that_lag_make_nothing_twice(
    backend: AlibabaBackend,
    world: World,
    run: Run,
    used_volume: Resource,
    snapshot: Resource,
    faults: Faults,
    order: Order,
) -> None:
    rule = order({"kind": "stale", "seconds": 0.3})
    for action, _, _, make in makers(backend, run, used_volume, snapshot):
        before = faults.counter(rule).injected
        # The second maker sees nothing of what the first has made.
        first, second = make(), make()
        assert first.id == second.id, action
        assert faults.counter(rule).injected > before
    faults.clear()
    for action, kind, labels, _ in makers(backend, run, used_volume, snapshot):
        assert world.count(kind, labels) == 1, action


def test_an_attachment_that_is_not_listed_yet_is_no_conflict(
    backend: AlibabaBackend, world: World, run: Run, gateway: Resource, order: Order, faults: Faults
) -> None:
    """The reply is lost, the repeat is refused for its own work, and the list shows the volume as it was before."""
    volume = backend.create_volume(run(Role.REPLICA, "x"), SMALL)
    order({"kind": "stale", "seconds": 0.6}, action="DescribeDisks")
    order({"kind": "drop-reply"}, action="AttachDisk", times=1)
    order({"kind": "drop-reply"}, action="DetachDisk", times=1)
    backend.attach(volume.id, gateway.id)
    assert backend.get(Kind.VOLUME, volume.id).attached_to == gateway.id
    backend.detach(volume.id)
    assert backend.get(Kind.VOLUME, volume.id).attached_to == ""
    assert {entry.kind for entry in faults.log()} == {"stale", "drop-reply"}


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ({"kind": "no-stock"}, QuotaExceeded, "OperationDenied.NoStock"),
        ({"kind": "quota"}, QuotaExceeded, "QuotaExceed.ElasticQuota"),
        ({"kind": "forbidden"}, Denied, "Forbidden.RAM"),
        ({"kind": "error", "code": "OperationConflict", "status": 409}, Conflict, "OperationConflict"),
    ],
)
def test_what_does_not_pass_is_named_at_once(
    backend: AlibabaBackend,
    world: World,
    run: Run,
    faults: Faults,
    order: Order,
    fault: dict[str, Any],
    error: type[BackendError],
    words: str,
) -> None:
    rule = order(fault, action="RunInstances")
    with pytest.raises(error, match=words) as caught:
        backend.run_instance(run(Role.TARGET), HOST)
    assert caught.value.remedy and faults.counter(rule).injected == 1
    assert world.count(Kind.INSTANCE, run(Role.TARGET)) == 0


def test_throttling_without_end_is_unavailable(
    backend: AlibabaBackend, run: Run, faults: Faults, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ecs, "_RETRY_FOR_SECONDS", 0.3)
    order({"kind": "throttle", "retry_after_ms": 100})
    with pytest.raises(Unavailable, match="did not carry out describe_disks"):
        backend.create_volume(run(Role.REPLICA, "x"), SMALL)
    assert 2 <= len(faults.log()) <= 4


def test_a_failed_snapshot_or_image_is_made_again(
    backend: AlibabaBackend, world: World, run: Run, used_volume: Resource, order: Order
) -> None:
    order({"kind": "failed-transition", "of": "snapshot", "state": "progressing"}, times=1)
    order({"kind": "failed-transition", "of": "image", "state": "Creating"}, times=1)
    labels, prepared = run(Role.REPLICA, "data", 1), run(Role.PREPARED, generation=1)
    assert ready(backend, backend.snapshot(used_volume.id, labels)).state is State.FAILED
    again = ready(backend, backend.snapshot(used_volume.id, labels))
    assert again.state is State.READY
    assert ready(backend, backend.create_image(prepared, [again])).state is State.FAILED
    assert ready(backend, backend.create_image(prepared, [again])).state is State.READY
    assert [world.count(Kind.SNAPSHOT, labels), world.count(Kind.IMAGE, prepared)] == [2, 2]


def test_a_snapshot_for_which_the_cloud_had_no_room_is_made_again(
    backend: AlibabaBackend, run: Run, used_volume: Resource, faults: Faults, order: Order
) -> None:
    rule = order({"kind": "disk-full", "of": "snapshot"}, times=1)
    labels = run(Role.REPLICA, "data", 1)
    made = ready(backend, backend.snapshot(used_volume.id, labels))
    assert made.state is State.READY and faults.counter(rule).injected == 1
    assert [each.id for each in backend.list(labels, Kind.SNAPSHOT) if each.state is State.READY] == [made.id]


def test_a_volume_that_cannot_be_made_is_soon_told_and_then_made_again(
    backend: AlibabaBackend, world: World, run: Run, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "_APPEAR_SECONDS", 0.5)
    order({"kind": "failed-transition", "of": "disk", "state": "Creating"}, times=1)
    labels = run(Role.REPLICA, "x")
    with pytest.raises(NotFound):
        backend.create_volume(labels, SMALL)
    assert backend.create_volume(labels, SMALL).state is State.READY
    assert world.count(Kind.VOLUME, labels) == 1


def test_an_attachment_that_failed_is_named(
    backend: AlibabaBackend, run: Run, gateway: Resource, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "_SETTLE_SECONDS", 1.0)
    volume = backend.create_volume(run(Role.REPLICA, "x"), SMALL)
    order({"kind": "failed-transition", "of": "disk", "state": "Attaching"}, times=1)
    with pytest.raises(Unavailable, match=volume.id):
        backend.attach(volume.id, gateway.id)
    backend.attach(volume.id, gateway.id)
    assert backend.get(Kind.VOLUME, volume.id).attached_to == gateway.id


def test_a_bad_day_ends_with_one_of_each_and_then_none(
    backend: AlibabaBackend, world: World, run: Run, gateway: Resource, faults: Faults, order: Order
) -> None:
    for seed, fault in enumerate(PASSING.values()):
        order(fault, probability=0.08, seed=seed)
    order({"kind": "stale", "seconds": 0.2})
    volume = backend.create_volume(run(Role.REPLICA, "data"), SMALL)
    backend.attach(volume.id, gateway.id)
    first = ready(backend, backend.snapshot(volume.id, run(Role.REPLICA, "data", 1)))
    clone = backend.clone(first, run(Role.CLONE, "data", 1), SMALL)
    backend.attach(clone.id, gateway.id)
    backend.detach(clone.id)
    second = ready(backend, backend.snapshot(clone.id, run(Role.CLONE, "data", 1)))
    image = ready(backend, backend.create_image(run(Role.PREPARED, generation=1), [second]))
    instance = backend.run_instance(run(Role.TARGET), HOST)
    ready(backend, instance)
    kinds = {entry.kind for entry in faults.log()}
    assert "stale" in kinds and len(kinds) >= 3
    for resource in (instance, image, second, clone, first, volume):
        backend.delete(resource)
    faults.clear()
    for resource in (instance, image, second, clone, first, volume):
        gone(backend, resource)
    assert [world.count(kind, run()) for kind in Kind] == [0, 0, 0, 0]
