"""A backend that dies between any two steps, and two of them that want what contradicts each other."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from storage_backends.archives.backend import ArchiveBackend, Place
from storage_backends.base import Kind, Labels, Resource, Role
from storage_backends.errors import BackendError, Conflict, NotFound
from tests.storage_backends.conftest import SMALL, World
from tests.storage_backends.contract.conftest import MASTER, Peer, fill
from tests.storage_backends.contract.test_contract import delete_all
from wavelift.archive.descriptor import BucketArchive, DisksArchive
from wavelift.archive.opening import open_archive
from wavelift.localcloud.faults.rules import Rule
from wavelift.stores.base import Entry, Store

BAD_DAYS = ("throttle", "unavailable", "reset")
Run = Callable[..., Labels]
Step = Callable[[ArchiveBackend], object]


class Died(BaseException):
    """Of the process that a backend is in."""


class Mortal:
    """A store that lets the process die right before, or right after, its n-th change."""

    def __init__(self, store: Store, dies_at: int, *, after: bool) -> None:
        self._store, self._left, self._after = store, dies_at, after

    @property
    def name(self) -> str:
        return self._store.name

    def put(self, key: str, data: bytes | bytearray | memoryview, *, new: bool = False) -> None:
        self._change(lambda: self._store.put(key, data, new=new))

    def delete(self, keys: Iterable[str]) -> None:
        self._change(lambda: self._store.delete(keys))

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._store.get(key, start, length)

    def size(self, key: str) -> int:
        return self._store.size(key)

    def list(self, prefix: str) -> Iterator[Entry]:
        return self._store.list(prefix)

    def _change(self, change: Callable[[], None]) -> None:
        self._left -= 1
        if self._left < 0:
            raise Died
        if self._left == 0 and not self._after:
            raise Died
        change()
        if self._left == 0:
            raise Died


@dataclass
class MortalPlace:
    place: Place
    dies_at: int
    after: bool

    @property
    def carrier(self) -> Literal["bucket", "disks"]:
        return self.place.carrier

    def store(self) -> Store:
        return Mortal(self.place.store(), self.dies_at, after=self.after)

    def descriptor(self, prefix: str, key: str, *, writes: bool) -> BucketArchive | DisksArchive:
        return self.place.descriptor(prefix, key, writes=writes)


def makers(run: Run) -> list[tuple[str, Step]]:
    """Name, and call, of what makes and deletes, in an order that works."""

    def find(backend: ArchiveBackend, *labels: Any) -> Resource:
        (found,) = backend.list(run(*labels), Kind.SNAPSHOT if labels == (Role.REPLICA, "data", 1) else Kind.VOLUME)
        return found

    def delete(*labels: Any) -> Step:
        def gone(backend: ArchiveBackend) -> None:
            with suppress(ValueError):
                backend.delete(find(backend, *labels))

        return gone

    replica, held, copied = (Role.REPLICA, "data"), (Role.REPLICA, "data", 1), (Role.CLONE, "data", 1)
    return [
        ("create", lambda b: b.create_volume(run(*replica), SMALL)),
        ("snapshot", lambda b: b.snapshot(find(b, *replica).id, run(*held))),
        ("clone", lambda b: b.clone(find(b, *held), run(*copied), SMALL)),
        ("delete the clone", delete(*copied)),
        ("delete the snapshot", delete(*held)),
        ("delete the volume", delete(*replica)),
    ]


@pytest.mark.parametrize("after", [False, True], ids=["undone", "done"])
def test_after_a_death_at_any_step_the_same_call_does_it(peer_of_steps: Peer, run: Run, after: bool) -> None:
    backend = peer_of_steps.open()
    deaths = 0
    for number, (name, step) in enumerate(makers(run)):
        for dies_at in itertools.count(1):
            dying = ArchiveBackend(MortalPlace(peer_of_steps.place(), dies_at, after), MASTER)
            try:
                step(dying)
            except Died:
                deaths += 1
                # All that lies there belongs to something that is listed.
                assert backend.list(run()) or not peer_of_steps.left(run()), name
                continue
            break
        step(backend)
        if number == 0:
            fill(backend, backend.list(run())[0].id)
        made = min(number + 1, 5 - number)
        assert len(backend.list(run())) == made, name
    assert deaths >= 8
    assert peer_of_steps.left(run()) == []


@pytest.mark.parametrize("until", range(3), ids=["create", "snapshot", "clone"])
def test_whatever_a_death_leaves_is_found_and_deleted(peer_of_steps: Peer, run: Run, until: int) -> None:
    for dies_at in itertools.count(1):
        backend = peer_of_steps.open()
        dying = ArchiveBackend(MortalPlace(peer_of_steps.place(), dies_at, after=True), MASTER)
        for number, (_, step) in enumerate(makers(run)[: until + 1]):
            try:
                step(dying if number == until else backend)
            except Died:
                break
            if number == 0:
                fill(backend, backend.list(run(Role.REPLICA))[0].id)
        else:
            delete_all(peer_of_steps, run())
            return
        delete_all(peer_of_steps, run())
        assert peer_of_steps.left(run()) == [], (until, dies_at)


@pytest.mark.parametrize("kind", ["drop-reply", *(pytest.param(each, marks=pytest.mark.slow) for each in BAD_DAYS)])
def test_a_bad_day_of_the_bucket_makes_nothing_twice(oss: Peer, run: Run, world: World, kind: str) -> None:
    backend = oss.backend
    rule = Rule.model_validate({"fault": {"kind": kind}, "service": "oss", "times": 2})
    for number, (name, step) in enumerate(makers(run)):
        world.cloud.faults.add([rule])
        try:
            step(backend)
        finally:
            world.cloud.faults.reset()
        if number == 0:
            fill(backend, backend.list(run())[0].id)
        assert len(backend.list(run())) == min(number + 1, 5 - number), name
    assert oss.left(run()) == []


@pytest.fixture(params=["memory", "oss"])
def peer_of_steps(request: pytest.FixtureRequest) -> Peer:
    made: Peer = request.getfixturevalue(request.param)
    return made


def both(*calls: Callable[[], object]) -> list[BackendError | None]:
    """At the same moment; the error of each."""
    gate = threading.Barrier(len(calls))

    def one(call: Callable[[], object]) -> BackendError | None:
        gate.wait()
        try:
            call()
        except BackendError as error:
            return error
        return None

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


def test_a_volume_goes_or_gets_a_snapshot_never_both(memory: Peer, run: Run) -> None:
    backend = memory.open()
    for _ in range(25):
        volume = backend.create_volume(run(Role.REPLICA, "data"), SMALL)
        fill(backend, volume.id)
        deleted, held = both(
            partial(memory.open().delete, volume),
            partial(memory.open().snapshot, volume.id, run(Role.REPLICA, "data", 1)),
        )
        assert deleted is None or isinstance(deleted, Conflict)
        assert held is None or isinstance(held, Conflict | NotFound)
        if held is None:
            archive = open_archive(backend.source(f"{volume.id}.1"))
            assert archive.load(1).generation == 1
        delete_all(memory, run())
        assert memory.left(run()) == []


def test_a_snapshot_goes_or_gets_a_clone_never_both(memory: Peer, run: Run) -> None:
    backend = memory.open()
    volume = backend.create_volume(run(Role.REPLICA, "data"), SMALL)
    fill(backend, volume.id)
    for _ in range(25):
        held = backend.snapshot(volume.id, run(Role.REPLICA, "data", 1))
        deleted, cloned = both(
            partial(memory.open().delete, held),
            partial(memory.open().clone, held, run(Role.CLONE, "data", 1), SMALL),
        )
        assert deleted is None or isinstance(deleted, Conflict)
        clones = backend.list(run(Role.CLONE))
        assert (cloned is None) == bool(clones)
        if cloned is None:
            assert open_archive(backend.source(clones[0].id)).load(1).generation == 1
            backend.delete(clones[0])


def test_a_volume_is_made_or_deleted_and_nothing_is_left_over(memory: Peer, run: Run) -> None:
    backend = memory.open()
    for _ in range(25):
        volume = backend.create_volume(run(Role.REPLICA, "data"), SMALL)
        both(
            partial(memory.open().delete, volume),
            partial(memory.open().create_volume, run(Role.REPLICA, "data"), SMALL),
            partial(memory.open().delete, volume),
        )
        delete_all(memory, run())
        assert memory.left(run()) == []


class Meddled:
    """A store where somebody else does something right before the n-th thing that is asked of it."""

    def __init__(self, store: Store, at: int, meddle: Callable[[], None]) -> None:
        self._store, self._left, self._meddle = store, at, meddle

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._store, name)
        if not callable(asked):
            return asked
        self._left -= 1
        if self._left == 0:
            self._meddle()
        return asked

    @property
    def done(self) -> bool:
        return self._left <= 0


@pytest.mark.parametrize("made_anew", [False, True], ids=["deleted", "made anew"])
def test_whatever_others_do_at_any_step_of_a_deletion_nothing_is_left_over(
    peer_of_steps: Peer, run: Run, made_anew: bool
) -> None:
    others = peer_of_steps.open()

    for at in itertools.count(1):
        volume = others.create_volume(run(Role.REPLICA, "data"), SMALL)

        def meddle(volume: Resource = volume) -> None:
            others.delete(volume)
            if made_anew:
                others.create_volume(run(Role.REPLICA, "data"), SMALL)

        backend = peer_of_steps.open()
        store = backend._store = Meddled(backend._store, at, meddle)
        backend._index._store = store
        backend.delete(volume)
        if others.list(run()):
            assert open_archive(others.source(volume.id)).id
        else:
            assert peer_of_steps.left(run()) == [], at
        delete_all(peer_of_steps, run())
        assert peer_of_steps.left(run()) == [], at
        if not store.done:
            break
    assert at > 5


_DYING = """
import os, signal, sys
from storage_backends.base import Labels, Role, VolumeSpec
from storage_backends.registry import open_backend
from wavelift.stores.directory import DirectoryStore

folder, change, run = sys.argv[1], int(sys.argv[2]), sys.argv[3]
left = change

def dying(method):
    def call(*args, **options):
        global left
        method(*args, **options)
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
    return call

DirectoryStore.put, DirectoryStore.delete = dying(DirectoryStore.put), dying(DirectoryStore.delete)
backend = open_backend("offline", connection_id="c", login="", password="", extra={"folders": folder, "plain": True})
for left_over in backend.list(Labels("wave", "web", run)):
    backend.delete(left_over)
volume = backend.create_volume(Labels("wave", "web", run, Role.REPLICA, "data"), VolumeSpec(1, ""))
backend.delete(volume)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_what_the_next_one_finds(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    killed = 0
    for change in itertools.count(1):
        ended = subprocess.run([sys.executable, "-c", _DYING, folder, str(change), run().run], check=False)
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL
        killed += 1
    assert killed >= 5
    peer = Peer(
        "offline",
        {
            "name": "offline",
            "connection_id": "c",
            "login": "",
            "password": "",
            "extra": {"folders": os.fspath(folder), "plain": True},
        },
    )
    assert peer.left(run()) == []
