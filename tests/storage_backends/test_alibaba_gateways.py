"""The life of gateway instances, by the real SDK against the local cloud: shared, replaced, removed when idle."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from storage_backends.alibaba import gateways, inventory
from storage_backends.alibaba.backend import AlibabaBackend
from storage_backends.base import Kind, Labels, Resource, Role, State
from storage_backends.errors import NotFound
from tests.storage_backends.conftest import SMALL, World, gone
from wavelift.localcloud.entities import Instance

VSWITCH = "vsw-local-a"


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client token names and the cloud does not list was deleted: find out soon."""
    monkeypatch.setattr(inventory, "_APPEAR_SECONDS", 0.3)


@pytest.fixture
def pool() -> Labels:
    """The first gateway of a wave run that no other test has."""
    return Labels("wave", "all", uuid.uuid4().hex[:8], Role.GATEWAY, number=1)


def user(name: str) -> Labels:
    return Labels("wave", name, f"run-{name}")


def stopped(backend: AlibabaBackend, world: World, gateway: Resource) -> None:
    """As a crash of the machine leaves it."""
    with world.cloud.cloud.store.transaction() as tx:
        instance = tx.get(Instance, gateway.id)
    assert instance is not None
    os.killpg(instance.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while backend.get(Kind.INSTANCE, gateway.id).state is not State.STOPPED:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_gateway_that_has_stopped_is_replaced_and_keeps_its_users(
    backend: AlibabaBackend, world: World, pool: Labels
) -> None:
    first = backend.use_gateway(pool, VSWITCH, 4, user("web"))
    backend.use_gateway(pool, VSWITCH, 4, user("db"))
    volume = backend.create_volume(Labels("wave", "web", "run-web", Role.REPLICA, "data"), SMALL)
    backend.attach(volume.id, first.id)
    assert backend.gateway_of(volume.id).id == first.id
    stopped(backend, world, first)
    second = backend.use_gateway(pool, VSWITCH, 4, user("web"))
    assert second.id != first.id and second.state is State.READY
    # What was attached to the dead one is free, and nobody has lost his place.
    assert backend.get(Kind.VOLUME, volume.id).attached_to == ""
    with pytest.raises(NotFound, match="attached to no gateway"):
        backend.sink(volume.id, user("web"), 1)
    backend.attach(volume.id, second.id)
    assert backend.sink(volume.id, user("web"), 1).url == backend.gateway_access(second, user("web")).url
    assert [each.id for each in backend.gateways_used(pool, user("db"))] == [second.id]
    assert not backend.leave_gateway(second, user("web"))
    assert backend.leave_gateway(second, user("db"))
    backend.delete(volume)


def test_a_gateway_that_was_released_is_made_again(backend: AlibabaBackend, pool: Labels) -> None:
    ids = []
    for _ in range(3):
        gateway = backend.use_gateway(pool, VSWITCH, 4, user("web"))
        ids.append(gateway.id)
        backend.remove_gateway(gateway)
        backend.remove_gateway(gateway)
        gone(backend, gateway)
    assert len(set(ids)) == 3


def test_the_last_one_to_leave_removes_it_with_its_volumes_let_go(backend: AlibabaBackend, pool: Labels) -> None:
    gateway = backend.use_gateway(pool, VSWITCH, 4, user("web"))
    assert backend.use_gateway(pool, VSWITCH, 4, user("db")).id == gateway.id
    volume = backend.create_volume(Labels("wave", "db", "run-db", Role.REPLICA, "data"), SMALL)
    backend.attach(volume.id, gateway.id)
    for _ in range(2):
        assert not backend.leave_gateway(gateway, user("web"))
    assert backend.get(Kind.INSTANCE, gateway.id).state is State.READY
    assert backend.leave_gateway(gateway, user("db"))
    assert backend.list(pool, Kind.INSTANCE) == []
    assert backend.get(Kind.VOLUME, volume.id).attached_to == ""
    # Again, as after a killed worker.
    assert backend.leave_gateway(gateway, user("db"))
    backend.delete(volume)


def test_a_gateway_is_never_taken_from_who_uses_it(world: World, pool: Labels) -> None:
    """Users come and go as they like; whoever was given a gateway finds it running until he leaves."""
    barrier = threading.Barrier(4)

    def visits(name: str) -> list[str]:
        own = world.backend()
        seen = []
        barrier.wait()
        for _ in range(3):
            gateway = own.use_gateway(pool, VSWITCH, 4, user(name))
            for _ in range(3):
                assert own.get(Kind.INSTANCE, gateway.id).state is State.READY, name
            seen.append(gateway.id)
            own.leave_gateway(gateway, user(name))
        return seen

    with ThreadPoolExecutor(4) as threads:
        seen = list(threads.map(visits, ["a", "b", "c", "d"]))
    assert all(len(each) == 3 for each in seen)
    assert world.backend().list(pool, Kind.INSTANCE) == []


def test_two_that_leave_at_the_same_moment_leave_nothing(world: World, pool: Labels) -> None:
    backend = world.backend()
    names = ["a", "b", "c"]
    for name in names:
        gateway = backend.use_gateway(pool, VSWITCH, 4, user(name))
    barrier = threading.Barrier(len(names))

    def leave(name: str) -> None:
        own = world.backend()
        barrier.wait()
        own.leave_gateway(gateway, user(name))

    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(leave, names))
    assert backend.list(pool, Kind.INSTANCE) == []


def test_a_removal_that_was_cut_short_is_carried_out_by_who_comes_next(
    backend: AlibabaBackend, pool: Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = backend.use_gateway(pool, VSWITCH, 4, user("web"))
    with monkeypatch.context() as patched:

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(gateways.Gateways, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            backend.leave_gateway(gateway, user("web"))
    assert "wavelift:retiring" in backend.get(Kind.INSTANCE, gateway.id).tags
    monkeypatch.setattr(gateways, "_RETIRING_SECONDS", 0.0)
    after = backend.use_gateway(pool, VSWITCH, 4, user("db"))
    assert after.id != gateway.id and after.state is State.READY
    assert backend.leave_gateway(after, user("db"))


def test_a_mark_that_a_run_left_behind_keeps_a_gateway_as_long_as_the_run_has_volumes(
    backend: AlibabaBackend, pool: Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateways, "_FRESH_SECONDS", 0.0)
    volume = backend.create_volume(Labels("wave", "lost", "run-lost", Role.REPLICA, "data"), SMALL)
    gateway = backend.use_gateway(pool, VSWITCH, 4, user("lost"))
    backend.use_gateway(pool, VSWITCH, 4, user("web"))
    assert not backend.leave_gateway(gateway, user("web"))
    backend.delete(volume)
    gone(backend, volume)
    assert backend.leave_gateway(gateway, user("web"))


@pytest.mark.parametrize(
    ("disks", "kind"), [(1, "ecs.c7.large"), (8, "ecs.c7.large"), (9, "ecs.g7.large"), (16, "ecs.g7.large")]
)
def test_the_first_type_with_enough_memory_is_taken(world: World, pool: Labels, disks: int, kind: str) -> None:
    backend = world.backend(gateway_instance_type="ecs.c7.large, ecs.g7.large, ecs.g7.xlarge")
    gateway = backend.ensure_gateway(pool, VSWITCH, disks)
    assert world.ecs.instance(gateway.id)["InstanceType"] == kind
    backend.remove_gateway(gateway)


def test_where_none_has_enough_memory_the_largest_is_taken(world: World, pool: Labels) -> None:
    backend = world.backend(gateway_instance_type="ecs.c7.large ecs.c7.large")
    gateway = backend.ensure_gateway(pool, VSWITCH, 16)
    assert world.ecs.instance(gateway.id)["InstanceType"] == "ecs.c7.large"
    backend.remove_gateway(gateway)


def test_twenty_volumes_on_two_gateways_are_found_again_by_where_they_are_attached(
    backend: AlibabaBackend, pool: Labels
) -> None:
    run = Labels("wave", "web", pool.run)
    gateways = [
        backend.use_gateway(Labels("wave", "all", pool.run, Role.GATEWAY, number=number), VSWITCH, 16, run)
        for number in (1, 2)
    ]
    assert len({gateway.id for gateway in gateways}) == 2

    def make(number: int) -> str:
        volume = backend.create_volume(Labels("wave", "web", pool.run, Role.REPLICA, f"d{number}"), SMALL)
        backend.attach(volume.id, gateways[number // 16].id)
        return volume.id

    with ThreadPoolExecutor(4) as threads:
        volumes = list(threads.map(make, range(20)))
    where = [backend.gateway_of(volume).id for volume in volumes]
    assert where == [gateways[number // 16].id for number in range(20)]
    urls = {backend.sink(volume, run, 1).url for volume in volumes}
    assert urls == {backend.gateway_access(gateway, run).url for gateway in gateways}
    used = backend.gateways_used(Labels("wave", "all", pool.run, Role.GATEWAY), run)
    assert [each.tag("number") for each in used] == ["1", "2"]
    assert all(backend.leave_gateway(gateway, run) for gateway in used)
    for volume in backend.list(run, Kind.VOLUME):
        assert volume.attached_to == ""
        backend.delete(volume)
