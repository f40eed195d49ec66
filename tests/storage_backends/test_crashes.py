"""A caller that is killed between a call and its reply, and calls that must not be repeated."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from alibabacloud_ecs20140526 import models

from storage_backends.alibaba import ecs
from storage_backends.alibaba.backend import AlibabaBackend
from storage_backends.alibaba.ecs import EcsApi
from storage_backends.base import Kind, Labels, Resource, Role, VolumeSpec
from storage_backends.errors import Conflict, Unavailable
from tests.storage_backends.conftest import HOST, SMALL, World, gone, ready
from wavelift.localcloud.faults.calls import Faults
from wavelift.localcloud.faults.rules import Rule

Run = Callable[..., Labels]
Making = Callable[[AlibabaBackend], Any]

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.storage_backends.test_crashes"])


@pytest.fixture
def faults(world: World) -> Iterator[Faults]:
    yield world.cloud.faults
    world.cloud.faults.reset()


def order(faults: Faults, fault: dict[str, Any], **fields: Any) -> str:
    (rule,) = faults.add([Rule.model_validate({"fault": fault, **fields})])
    return rule.id


def call(extra: dict[str, Any], name: str, arguments: tuple[Any, ...]) -> None:
    """In a process of its own: does not come back from the pause after the first lost reply."""
    ecs._FIRST_PAUSE_SECONDS = ecs._RETRY_FOR_SECONDS = 3600.0
    # Everything but the connection is in the arguments.
    getattr(World.backend(World(None, None, None, extra)), name)(*arguments)  # type: ignore[arg-type]


@pytest.fixture
def killed(world: World, faults: Faults) -> Callable[..., None]:
    """Calls the backend in another process, which is killed once the cloud has done it and before it says so."""

    def kill(action: str, name: str, *arguments: Any) -> None:
        rule = order(faults, {"kind": "drop-reply"}, action=action, times=1)
        process = FORKS.Process(target=call, args=(world.extra, name, arguments))
        process.start()
        deadline = time.monotonic() + 30
        while not faults.counter(rule).injected:
            assert process.is_alive() and time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        process.join()
        faults.remove(rule)

    return kill


def test_what_a_killed_caller_has_made_is_found_although_it_is_not_listed_yet(
    backend: AlibabaBackend, world: World, run: Run, used_volume: Resource, faults: Faults, killed: Callable[..., None]
) -> None:
    snapshot = ready(backend, backend.snapshot(used_volume.id, run(Role.REPLICA, "data", 1)))
    replica, clone, second = run(Role.REPLICA, "x"), run(Role.CLONE, "x", 1), run(Role.REPLICA, "data", 2)
    prepared, target = run(Role.PREPARED, generation=1), run(Role.TARGET)
    orders: list[tuple[str, Kind, Labels, str, tuple[Any, ...]]] = [
        ("CreateDisk", Kind.VOLUME, replica, "create_volume", (replica, SMALL)),
        ("CreateDisk", Kind.VOLUME, clone, "clone", (snapshot, clone, SMALL)),
        ("CreateSnapshot", Kind.SNAPSHOT, second, "snapshot", (used_volume.id, second)),
        ("CreateImage", Kind.IMAGE, prepared, "create_image", (prepared, [snapshot])),
        ("RunInstances", Kind.INSTANCE, target, "run_instance", (target, HOST)),
    ]
    lag = order(faults, {"kind": "stale", "seconds": 1.0})
    for action, _, labels, name, arguments in orders:
        killed(action, name, *arguments)
        before = faults.counter(lag).injected
        made = getattr(backend, name)(*arguments)
        assert faults.counter(lag).injected > before
        assert made.tags == labels.tags()
    faults.clear()
    for action, kind, labels, _, _ in orders:
        assert world.count(kind, labels) == 1, action


def test_what_a_killed_caller_ordered_otherwise_is_not_made_beside_it(
    backend: AlibabaBackend, world: World, run: Run, faults: Faults, killed: Callable[..., None]
) -> None:
    """The manifest was changed after the crash: the token is used, the list lags, and there is one volume yet."""
    labels = run(Role.REPLICA, "x")
    lag = order(faults, {"kind": "stale", "seconds": 2.0}, action="DescribeDisks")
    killed("CreateDisk", "create_volume", labels, SMALL)
    before = faults.counter(lag).injected
    larger = VolumeSpec(2, SMALL.category, SMALL.performance_level)
    assert backend.create_volume(labels, larger).size_gib == SMALL.size_gib
    assert faults.counter(lag).injected > before
    faults.clear()
    assert world.count(Kind.VOLUME, labels) == 1


def test_moving_and_deleting_go_on_where_a_killed_caller_was(
    backend: AlibabaBackend, world: World, run: Run, gateway: Resource, killed: Callable[..., None]
) -> None:
    volume = backend.create_volume(run(Role.REPLICA, "x"), SMALL)
    killed("AttachDisk", "attach", volume.id, gateway.id)
    backend.attach(volume.id, gateway.id)
    assert world.ecs.disk(volume.id)["InstanceId"] == gateway.id
    killed("DetachDisk", "detach", volume.id)
    backend.detach(volume.id)
    assert world.ecs.disk(volume.id)["Status"] == "Available"
    killed("ResizeDisk", "resize", volume.id, 3)
    assert backend.resize(volume.id, 3).size_gib == 3
    killed("DeleteDisk", "delete", volume)
    backend.delete(volume)
    gone(backend, volume)


def api_of(backend: AlibabaBackend) -> EcsApi:
    return backend._inventory._api


@pytest.mark.parametrize("fault", ["drop-reply", "internal-error", "bad-gateway", "reset"])
def test_without_a_client_token_what_may_have_been_done_is_not_done_again(
    backend: AlibabaBackend, world: World, run: Run, faults: Faults, fault: str
) -> None:
    order(faults, {"kind": fault}, action="CreateDisk")
    request = models.CreateDiskRequest(
        region_id="cn-local",
        zone_id="cn-local-a",
        size=1,
        disk_category="cloud_essd",
        performance_level="PL0",
        tag=[models.CreateDiskRequestTag(key=key, value=value) for key, value in run().tags().items()],
    )
    with pytest.raises(Unavailable, match="may have been carried out or not") as caught:
        api_of(backend).call("create_disk", request)
    assert caught.value.remedy and len(faults.log()) == 1
    assert world.count(Kind.VOLUME, run()) == (1 if fault == "drop-reply" else 0)


def test_without_a_client_token_throttling_is_waited_out_all_the_same(
    backend: AlibabaBackend, world: World, run: Run, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ecs, "_FIRST_PAUSE_SECONDS", 0.02)
    for code, hint in (("Throttling.Api", None), ("Throttling", 10), ("Throttling.User", None)):
        order(faults, {"kind": "throttle", "code": code, "retry_after_ms": hint}, action="CreateDisk", times=1)
    order(faults, {"kind": "unavailable"}, action="CreateDisk", times=1)
    request = models.CreateDiskRequest(
        region_id="cn-local", zone_id="cn-local-a", size=1, disk_category="cloud_essd", performance_level="PL0"
    )
    made = api_of(backend).call("create_disk", request)["DiskId"]
    assert len(faults.log()) == 4
    backend.delete(backend.get(Kind.VOLUME, made))


def test_the_wait_that_the_cloud_names_is_kept(
    backend: AlibabaBackend, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(ecs.time, "sleep", pauses.append)
    order(faults, {"kind": "throttle", "retry_after_ms": 7000}, action="DescribeRegions", times=1)
    order(faults, {"kind": "throttle"}, action="DescribeZones", times=5)
    backend.check_access()
    assert 7.0 <= pauses[0] <= 7.5
    # Twice as long each time, and never the same for all who were throttled together.
    for index, pause in enumerate(pauses[1:]):
        longest = min(0.5 * 2**index, 8.0)
        assert longest / 2 <= pause <= longest
    assert len(set(pauses)) == len(pauses) == 6


def test_a_wait_longer_than_we_try_is_told_at_once(backend: AlibabaBackend, faults: Faults) -> None:
    order(faults, {"kind": "throttle", "retry_after_ms": 3_600_000}, action="DescribeRegions")
    with pytest.raises(Unavailable, match="did not carry out describe_regions"):
        backend.check_access()
    assert len(faults.log()) == 1


def test_a_snapshot_that_is_under_way_is_a_conflict_not_a_wrong_value(backend: AlibabaBackend, faults: Faults) -> None:
    for code in ("DiskCreatingSnapshot", "ImageIsCopying", "InvalidSnapshotId.NotReady"):
        rule = order(faults, {"kind": "error", "code": code, "status": 403}, action="DescribeRegions")
        with pytest.raises(Conflict, match=code):
            backend.check_access()
        faults.remove(rule)
