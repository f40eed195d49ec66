"""The alibaba backend's contract, by the real SDK against the local cloud: making, finding, attaching, deleting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from storage_backends.alibaba import inventory
from storage_backends.alibaba.backend import AlibabaBackend
from storage_backends.base import Kind, Labels, Resource, Role, State
from storage_backends.errors import BackendError, Conflict, NotFound
from tests.storage_backends.conftest import HOST, SMALL, World, gone, ready
from wavelift.localcloud.entities import Image, Snapshot
from wavelift.localcloud.states import ImageStatus, SnapshotStatus

Run = Callable[..., Labels]


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client token names and the cloud does not list was deleted: find out soon."""
    monkeypatch.setattr(inventory, "_APPEAR_SECONDS", 0.1)


@pytest.fixture
def snapshot(backend: AlibabaBackend, used_volume: Resource, run: Run) -> Resource:
    return ready(backend, backend.snapshot(used_volume.id, run(Role.REPLICA, "data", 1)))


@pytest.fixture
def image(backend: AlibabaBackend, snapshot: Resource, run: Run) -> Resource:
    return ready(backend, backend.create_image(run(Role.PREPARED, generation=1), [snapshot]))


def test_a_volume_is_as_ordered_ready_and_found(backend: AlibabaBackend, run: Run) -> None:
    labels = run(Role.REPLICA, "data")
    volume = backend.create_volume(labels, SMALL)
    assert (volume.state, volume.size_gib, volume.attached_to) == (State.READY, 1, "")
    assert volume.tags == labels.tags() and volume.tag("disk") == "data"
    assert volume.name == labels.name()
    assert backend.list(labels, Kind.VOLUME) == [volume]


def makers(backend: AlibabaBackend, world: World, run: Run, volume: Resource, snapshot: Resource) -> list[Any]:
    """(kind, labels, maker) of everything that can be made."""

    def of(kind: Kind, labels: Labels, make: Callable[[AlibabaBackend], Resource]) -> Any:
        return kind, labels, make

    replica, clone = run(Role.REPLICA, "system"), run(Role.CLONE, "data", 1)
    second, prepared, target = run(Role.REPLICA, "data", 2), run(Role.PREPARED, generation=1), run(Role.TARGET)
    gateway = run(Role.GATEWAY)
    return [
        of(Kind.VOLUME, replica, lambda b: b.create_volume(replica, SMALL)),
        of(Kind.VOLUME, clone, lambda b: b.clone(snapshot, clone, SMALL)),
        of(Kind.SNAPSHOT, second, lambda b: b.snapshot(volume.id, second)),
        of(Kind.IMAGE, prepared, lambda b: b.create_image(prepared, [snapshot])),
        of(Kind.INSTANCE, target, lambda b: b.run_instance(target, HOST)),
        of(Kind.INSTANCE, gateway, lambda b: b.ensure_gateway(gateway, "vsw-local-a")),
    ]


def test_whatever_is_made_twice_is_one_thing(
    backend: AlibabaBackend, world: World, run: Run, used_volume: Resource, snapshot: Resource
) -> None:
    for kind, labels, make in makers(backend, world, run, used_volume, snapshot):
        first = make(backend)
        assert make(world.backend()).id == first.id, labels
        assert world.count(kind, labels) == 1, labels
        assert first.tags == labels.tags()


def test_two_that_make_it_at_the_same_moment_make_one_thing(
    backend: AlibabaBackend, world: World, run: Run, used_volume: Resource, snapshot: Resource
) -> None:
    for kind, labels, make in makers(backend, world, run, used_volume, snapshot):
        barrier = threading.Barrier(3)

        def together(_: int, make: Any = make, barrier: threading.Barrier = barrier) -> str:
            own = world.backend()
            barrier.wait()
            return str(make(own).id)

        with ThreadPoolExecutor(3) as pool:
            assert len(set(pool.map(together, range(3)))) == 1, labels
        assert world.count(kind, labels) == 1, labels


def test_different_labels_are_different_things_whatever_their_names_look_like(
    backend: AlibabaBackend, world: World
) -> None:
    """`a-b`/`c` and `a`/`b-c` read the same in a name."""
    pairs = [
        (Labels("a-b", "c", "r", Role.REPLICA, "d"), Labels("a", "b-c", "r", Role.REPLICA, "d")),
        (Labels("w", "m", "r", Role.CLONE, "d-g1"), Labels("w", "m", "r", Role.CLONE, "d", 1)),
    ]
    for one, other in pairs:
        volumes = [backend.create_volume(labels, SMALL) for labels in (one, other)]
        assert [volume.tags for volume in volumes] == [one.tags(), other.tags()]
        assert volumes[0].id != volumes[1].id


@pytest.mark.usefixtures("brief")
def test_what_was_deleted_is_not_handed_out_again(backend: AlibabaBackend, world: World, run: Run) -> None:
    labels = run(Role.CLONE, "data", 1)
    ids = []
    for _ in range(5):
        volume = backend.create_volume(labels, SMALL)
        assert backend.get(Kind.VOLUME, volume.id).state is State.READY
        ids.append(volume.id)
        backend.delete(volume)
        gone(backend, volume)
    assert len(set(ids)) == 5


@pytest.mark.usefixtures("brief")
def test_an_order_with_other_values_than_the_deleted_one_is_carried_out(
    backend: AlibabaBackend, world: World, run: Run, used_volume: Resource, snapshot: Resource
) -> None:
    """A clone made again from a newer snapshot: the cloud refuses the client token of the first."""
    labels = run(Role.CLONE, "data")
    clone = backend.clone(snapshot, labels, SMALL)
    backend.delete(clone)
    gone(backend, clone)
    newer = ready(backend, backend.snapshot(used_volume.id, run(Role.REPLICA, "data", 2)))
    again = backend.clone(newer, labels, SMALL)
    assert again.id != clone.id
    assert world.ecs.disk(again.id)["SourceSnapshotId"] == newer.id


@pytest.mark.usefixtures("brief")
def test_a_failed_snapshot_is_replaced_however_often_it_failed(
    backend: AlibabaBackend, world: World, run: Run, used_volume: Resource
) -> None:
    labels = run(Role.REPLICA, "data", 7)
    ids = []
    for _ in range(5):
        snapshot = ready(backend, backend.snapshot(used_volume.id, labels))
        assert snapshot.state is State.READY
        ids.append(snapshot.id)
        with world.cloud.cloud.store.transaction() as tx:
            entity = tx.get(Snapshot, snapshot.id)
            assert entity is not None
            entity.become(SnapshotStatus.FAILED)
            tx.put(entity)
    assert len(set(ids)) == 5


def test_a_failed_image_is_replaced_although_its_name_is_taken(
    backend: AlibabaBackend, world: World, run: Run, snapshot: Resource
) -> None:
    labels = run(Role.PREPARED, generation=1)
    failed = ready(backend, backend.create_image(labels, [snapshot]))
    with world.cloud.cloud.store.transaction() as tx:
        entity = tx.get(Image, failed.id)
        assert entity is not None
        entity.become(ImageStatus.CREATE_FAILED)
        tx.put(entity)
    assert backend.get(Kind.IMAGE, failed.id).state is State.FAILED
    again = ready(backend, backend.create_image(labels, [snapshot]))
    assert again.id != failed.id and again.state is State.READY
    assert backend.create_image(labels, [snapshot]).id == again.id


def test_attach_and_detach_are_idempotent(backend: AlibabaBackend, world: World, gateway: Resource, run: Run) -> None:
    volume = backend.create_volume(run(Role.REPLICA, "data"), SMALL)
    backend.detach(volume.id)
    for _ in range(2):
        backend.attach(volume.id, gateway.id)
        assert world.ecs.disk(volume.id)["Status"] == "In_use"
        assert backend.get(Kind.VOLUME, volume.id).attached_to == gateway.id
    serial = volume.id.removeprefix("d-")
    assert (world.state / "instances" / gateway.id / "devices" / f"virtio-{serial}").exists()
    for _ in range(2):
        backend.detach(volume.id)
        assert world.ecs.disk(volume.id)["Status"] == "Available"
        assert backend.get(Kind.VOLUME, volume.id).attached_to == ""


def test_a_volume_is_never_taken_from_another_instance(
    backend: AlibabaBackend, world: World, gateway: Resource, run: Run
) -> None:
    other = backend.ensure_gateway(run(Role.GATEWAY), "vsw-local-a")
    volume = backend.create_volume(run(Role.REPLICA, "data"), SMALL)
    backend.attach(volume.id, other.id)
    with pytest.raises(Conflict, match=f"attached to {other.id}, not to {gateway.id}"):
        backend.attach(volume.id, gateway.id)
    assert backend.get(Kind.VOLUME, volume.id).attached_to == other.id


def test_list_finds_exactly_what_carries_the_labels(
    backend: AlibabaBackend,
    run: Run,
    used_volume: Resource,
    snapshot: Resource,
    image: Resource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    instance = backend.run_instance(run(Role.TARGET), HOST)
    second = ready(backend, backend.snapshot(used_volume.id, run(Role.REPLICA, "data", 2)))
    mine = run()
    stranger = backend.create_volume(Labels(mine.wave, "other", mine.run, Role.REPLICA, "data"), SMALL)

    def ids(labels: Labels, kind: Kind | None = None) -> set[str]:
        found = backend.list(labels, kind)
        assert len({each.id for each in found}) == len(found)
        return {each.id for each in found}

    # Not the instance's own disk, which has its tags too.
    everything = {used_volume.id, snapshot.id, second.id, image.id, instance.id}
    assert ids(mine) == everything
    assert ids(run(Role.REPLICA)) == {used_volume.id, snapshot.id, second.id}
    assert ids(run(Role.REPLICA, "data"), Kind.SNAPSHOT) == {snapshot.id, second.id}
    assert ids(run(Role.REPLICA, "data", 2)) == {second.id}
    assert ids(run(generation=1)) == {snapshot.id, image.id}
    assert ids(run(Role.REPLICA, "dat")) == set()
    assert ids(Labels("wave", "other", mine.run)) == {stranger.id}
    # The same over many pages.
    monkeypatch.setattr(inventory, "_PAGE", 1)
    assert ids(mine) == everything


def test_delete_takes_everything_and_is_idempotent(
    backend: AlibabaBackend, world: World, gateway: Resource, run: Run, image: Resource
) -> None:
    volume = backend.list(run(Role.REPLICA, "data"), Kind.VOLUME)[0]
    backend.attach(volume.id, gateway.id)
    instance = world.backend().ensure_gateway(run(Role.GATEWAY), "vsw-local-a")
    assert backend.get(Kind.INSTANCE, instance.id).status == "Running"
    everything = sorted(backend.list(run()), key=lambda each: list(Kind).index(each.kind))
    assert {each.kind for each in everything} == set(Kind)
    image_first = sorted(everything, key=lambda each: each.kind is Kind.SNAPSHOT)
    for resource in image_first:
        backend.delete(resource)
        gone(backend, resource)
    assert [world.count(kind, run()) for kind in Kind] == [0, 0, 0, 0]
    for resource in everything:
        backend.delete(resource)
        with pytest.raises(NotFound, match=f"{resource.id} does not exist"):
            backend.get(resource.kind, resource.id)


def test_a_snapshot_that_an_image_uses_stays(backend: AlibabaBackend, snapshot: Resource, image: Resource) -> None:
    with pytest.raises(Conflict, match="SnapshotCreatedImage"):
        backend.delete(snapshot)
    assert backend.get(Kind.SNAPSHOT, snapshot.id).state is State.READY
    assert backend.get(Kind.IMAGE, image.id).state is State.READY


def test_what_does_not_exist_is_not_found(backend: AlibabaBackend, gateway: Resource, run: Run) -> None:
    volume = backend.create_volume(run(Role.REPLICA, "data"), SMALL)
    no_snapshot = Resource(Kind.SNAPSHOT, "s-gone", State.READY, "accomplished", size_gib=1)
    calls: dict[str, Callable[[], Any]] = {
        "get": lambda: backend.get(Kind.SNAPSHOT, "s-gone"),
        "attach a volume": lambda: backend.attach("d-gone", gateway.id),
        "attach to an instance": lambda: backend.attach(volume.id, "i-gone"),
        "detach": lambda: backend.detach("d-gone"),
        "console": lambda: backend.console("i-gone"),
        "snapshot": lambda: backend.snapshot("d-gone", run(Role.REPLICA, "x", 1)),
        "clone": lambda: backend.clone(no_snapshot, run(Role.CLONE, "x", 1), SMALL),
        "create_image": lambda: backend.create_image(run(Role.PREPARED, generation=9), [no_snapshot]),
        "sink": lambda: backend.sink(volume.id, run(), 1),
    }
    for name, call in calls.items():
        with pytest.raises(NotFound) as caught:
            call()
        assert caught.value.remedy, name


def test_the_console_of_an_instance_is_text(backend: AlibabaBackend, gateway: Resource) -> None:
    deadline = time.monotonic() + 10
    while "started as gateway" not in (shown := backend.console(gateway.id)):
        assert time.monotonic() < deadline, shown
        time.sleep(0.05)


def test_a_machine_without_a_screen_says_so(backend: AlibabaBackend, gateway: Resource) -> None:
    """Pictures of real machines are taken in tests/e2e."""
    with pytest.raises(BackendError, match="no screen"):
        backend.screenshot(gateway.id)
