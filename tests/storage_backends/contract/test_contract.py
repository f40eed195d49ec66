"""What every backend promises, of each of them: the same calls, whatever stands behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from storage_backends.base import Kind, Labels, Resource, Role, State
from storage_backends.errors import BackendError, NotFound
from tests.storage_backends.conftest import SMALL, gone, ready
from tests.storage_backends.contract.conftest import Peer

Run = Callable[..., Labels]


def volume(peer: Peer, run: Run, disk: str = "data", *, anew: bool = False) -> Resource:
    """`anew`: as another process does."""
    backend = peer.open() if anew else peer.backend
    made: Resource = backend.create_volume(run(Role.REPLICA, disk), SMALL)
    return made


def filled(peer: Peer, run: Run, disk: str = "data") -> Resource:
    made = volume(peer, run, disk)
    peer.fill(made.id)
    return made


def snapshot(peer: Peer, run: Run, of: Resource, generation: int = 1, *, anew: bool = False) -> Resource:
    backend = peer.open() if anew else peer.backend
    return ready(backend, backend.snapshot(of.id, run(Role.REPLICA, of.tag("disk"), generation)))


def clone(peer: Peer, run: Run, of: Resource, *, anew: bool = False) -> Resource:
    backend = peer.open() if anew else peer.backend
    made: Resource = backend.clone(of, run(Role.CLONE, of.tag("disk"), int(of.tag("generation"))), SMALL)
    return made


def delete_all(peer: Peer, labels: Labels) -> None:
    """Clones before snapshots before volumes: the one order that every backend takes."""
    backend = peer.backend
    everything = backend.list(labels)
    order = [Role.CLONE, Kind.SNAPSHOT, Kind.VOLUME]
    for resource in sorted(everything, key=lambda each: min(order.index(each.kind), _rank(order, each.tag("role")))):
        backend.delete(resource)
        gone(backend, resource)


def _rank(order: list[Any], role: str) -> int:
    return order.index(role) if role in order else len(order)


def test_access_is_there_and_leaves_nothing(peer: Peer, run: Run) -> None:
    peer.backend.check_access()
    assert peer.left(run()) == []


def test_capabilities_say_what_carries_packs(peer: Peer) -> None:
    said = peer.backend.capabilities()
    carriers = {"alibaba": "gateway", "memory": "disks", "offline": "disks", "loop": "disks"}
    assert said.carrier == carriers.get(peer.name, "bucket")
    assert said.bootable == (peer.name == "alibaba") and said.poll_seconds > 0


def test_from_a_volume_to_a_clone_and_back_to_nothing(peer: Peer, run: Run) -> None:
    backend = peer.backend
    first = filled(peer, run)
    assert (first.kind, first.state, first.size_gib) == (Kind.VOLUME, State.READY, 1)
    assert first.tags == run(Role.REPLICA, "data").tags() and first.name == run(Role.REPLICA, "data").name()
    held = snapshot(peer, run, first)
    assert (held.kind, held.state, held.size_gib) == (Kind.SNAPSHOT, State.READY, 1)
    assert held.tags == run(Role.REPLICA, "data", 1).tags()
    copied = clone(peer, run, held)
    assert copied.id != first.id and copied.tag("role") == Role.CLONE
    for resource in (first, held, copied):
        assert backend.get(resource.kind, resource.id).tags == resource.tags
    assert {each.id for each in backend.list(run())} == {first.id, held.id, copied.id}
    delete_all(peer, run())
    assert peer.left(run()) == [] and backend.list(run()) == []
    for resource in (first, held, copied):
        backend.delete(resource)
        with pytest.raises(NotFound, match=f"{resource.id} does not exist"):
            backend.get(resource.kind, resource.id)


def test_what_is_made_twice_is_one_thing(peer: Peer, run: Run) -> None:
    first = filled(peer, run)
    held = snapshot(peer, run, first)
    copied = clone(peer, run, held)
    assert volume(peer, run, anew=True).id == first.id
    assert snapshot(peer, run, first, anew=True).id == held.id
    assert clone(peer, run, held, anew=True).id == copied.id
    assert len(peer.backend.list(run())) == 3
    delete_all(peer, run())
    assert peer.left(run()) == []


def test_of_several_at_the_same_moment_one_thing_is_made(peer: Peer, run: Run) -> None:
    def together(make: Callable[[], Resource]) -> Resource:
        gate = threading.Barrier(4)

        def one(_: int) -> Resource:
            gate.wait()
            return make()

        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(one, range(4)))
        assert len({each.id for each in made}) == 1
        return made[0]

    first = together(lambda: volume(peer, run, anew=True))
    peer.fill(first.id)
    held = together(lambda: snapshot(peer, run, first, anew=True))
    together(lambda: clone(peer, run, held, anew=True))
    assert len(peer.backend.list(run())) == 3
    delete_all(peer, run())
    assert peer.left(run()) == []


def test_different_labels_are_different_things_whatever_their_names_look_like(peer: Peer, run: Run) -> None:
    name = run().run
    pairs = [
        (Labels("a-b", "c", name, Role.REPLICA, "d"), Labels("a", "b-c", name, Role.REPLICA, "d")),
        (Labels("w", "m", name, Role.CLONE, "d-g1"), Labels("w", "m", name, Role.CLONE, "d", 1)),
    ]
    backend = peer.backend
    for pair in pairs:
        made = [backend.create_volume(labels, SMALL) for labels in pair]
        assert made[0].id != made[1].id and [each.tags for each in made] == [labels.tags() for labels in pair]
        for labels, each in zip(pair, made, strict=True):
            assert [found.id for found in backend.list(labels, Kind.VOLUME)] == [each.id]
            backend.delete(each)


def test_a_list_has_exactly_what_carries_the_labels(peer: Peer, run: Run) -> None:
    backend = peer.backend
    data, system = filled(peer, run), filled(peer, run, "system")
    stranger = backend.create_volume(Labels("wave", "other", run().run, Role.REPLICA, "data"), SMALL)
    first = snapshot(peer, run, data)
    peer.fill(data.id, 2)
    second = snapshot(peer, run, data, 2)
    other = snapshot(peer, run, system)

    def ids(labels: Labels, kind: Kind | None = None) -> set[str]:
        found = backend.list(labels, kind)
        assert len({each.id for each in found}) == len(found)
        return {each.id for each in found}

    assert ids(run()) == {data.id, system.id, first.id, second.id, other.id}
    assert ids(run(Role.REPLICA, "data"), Kind.SNAPSHOT) == {first.id, second.id}
    assert ids(run(Role.REPLICA, "data", 2)) == {second.id}
    assert ids(run(generation=1)) == {first.id, other.id}
    assert ids(run(Role.REPLICA, "dat")) == ids(run(), Kind.INSTANCE) == set()
    assert ids(Labels("wave", "other", run().run)) == {stranger.id}
    assert ids(Labels("wav", "web", run().run)) == set()
    delete_all(peer, run())
    backend.delete(stranger)


def test_what_was_deleted_can_be_made_again(peer: Peer, run: Run) -> None:
    for _ in range(2):
        first = filled(peer, run)
        held = snapshot(peer, run, first)
        assert held.state is State.READY
        delete_all(peer, run())
        assert peer.left(run()) == []


def test_what_does_not_exist_is_not_found(peer: Peer, run: Run) -> None:
    backend = peer.backend
    nothing = Resource(Kind.SNAPSHOT, "s-gone", State.READY, "accomplished", size_gib=1)
    calls: dict[str, Callable[[], Any]] = {
        "get": lambda: backend.get(Kind.VOLUME, "d-gone"),
        "snapshot": lambda: backend.snapshot("d-gone", run(Role.REPLICA, "data", 1)),
        "clone": lambda: backend.clone(nothing, run(Role.CLONE, "data", 1), SMALL),
        "sink": lambda: backend.sink("d-gone", run(), 1),
    }
    for name, call in calls.items():
        with pytest.raises(NotFound) as caught:
            call()
        assert caught.value.remedy and not caught.value.retryable, name
    for kind in (Kind.VOLUME, Kind.SNAPSHOT):
        backend.delete(Resource(kind, "d-gone", State.READY, ""))
    assert peer.left(run()) == []


def test_what_was_never_written_has_no_snapshot(peer: Peer, run: Run) -> None:
    first = volume(peer, run)
    with pytest.raises(BackendError):
        peer.backend.snapshot(first.id, run(Role.REPLICA, "data", 1))
    delete_all(peer, run())
    assert peer.left(run()) == []
