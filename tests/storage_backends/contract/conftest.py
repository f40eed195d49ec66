"""Backends of every kind, opened as their connections describe them, each in a place of its own."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import oss2
import pytest
from moto.server import ThreadedMotoServer

from storage_backends.alibaba import inventory
from storage_backends.archives.backend import ArchiveBackend, Place
from storage_backends.archives.memory import MemoryBackend
from storage_backends.base import Kind, Labels
from storage_backends.registry import open_backend
from tests.archive.filling import BLOCK, Blocks, add, noise
from tests.localcloud.conftest import KEY, REGION, SECRET
from tests.storage_backends.conftest import World
from tests.stores.disks import disk
from wavelift.archive.descriptor import BucketArchive
from wavelift.archive.layout import Generation
from wavelift.archive.opening import open_archive
from wavelift.localcloud.accounts import ACCOUNT
from wavelift.stores.base import Store

MASTER = bytes(range(32))
SIZE = 8 * BLOCK
NUMBERS = itertools.count()
BUCKET = {"endpoint": "", "region": REGION, "bucket": "archives", "master_secret": MASTER.hex()}
ARCHIVES = ["memory", "offline", "loop", "oss", "s3", "moto"]


def content(generation: int) -> Blocks:
    """A block that stays, and one that is another each time."""
    return {0: noise(0), 3: noise(generation)}


def fill(backend: ArchiveBackend, volume_id: str, generation: int = 1) -> Generation:
    """As an agent does, by what it is given."""
    archive = open_archive(backend.sink(volume_id, Labels("", "", ""), generation))
    blocks = content(generation)
    if generation == 1:
        return add(archive, 1, SIZE, blocks, [blocks])
    return add(archive, generation, SIZE, blocks, [{3: blocks[3]}], base=archive.load(generation - 1))


@dataclass
class Peer:
    """`connection`: what opens it, however often. `cloud_fill` makes a cloud's volume one that has been written."""

    name: str
    connection: dict[str, Any]
    world: World | None = None
    cloud_fill: Callable[[str], None] | None = None
    _opened: list[Any] = field(default_factory=list)

    def open(self, **extra: Any) -> Any:
        """Anew, as another process does."""
        whole = {**self.connection, "extra": {**self.connection["extra"], **extra}}
        made = open_backend(**whole)
        self._opened.append(made)
        return made

    @cached_property
    def backend(self) -> Any:
        return self.open()

    def fill(self, volume_id: str, generation: int = 1) -> None:
        if self.cloud_fill is not None:
            self.cloud_fill(volume_id)
        else:
            fill(self.backend, volume_id, generation)

    def store(self) -> Store:
        """All that lies there."""
        return self._store

    @cached_property
    def _store(self) -> Store:
        return self.place().store()

    def place(self) -> Place:
        place: Place = self.backend._place
        return place

    def left(self, labels: Labels) -> list[str]:
        """What is there still, asked of where it lies rather than of the backend."""
        if self.world is not None:
            world = self.world
            return [kind for kind in (Kind.VOLUME, Kind.SNAPSHOT) for _ in range(world.count(kind, labels))]
        return [entry.key for entry in self.store().list("")]

    def close(self) -> None:
        for made in self._opened:
            if isinstance(made, MemoryBackend):
                made.close()
                return


@pytest.fixture(scope="session")
def archives_bucket(world: World) -> World:
    url = f"http://{world.cloud.oss_endpoint}"
    oss2.Bucket(oss2.AuthV4(KEY, SECRET), url, "archives", region=REGION, is_path_style=True).create_bucket()
    return world


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The URL of moto's S3 and STS, with the bucket "archives"."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    made = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1"
    )
    made.create_bucket(Bucket="archives")
    yield url
    server.stop()


def connection(name: str, login: str = "", password: str = "", **extra: Any) -> dict[str, Any]:
    return {"name": name, "connection_id": uuid.uuid4().hex, "login": login, "password": password, "extra": extra}


def _make(kind: str, request: pytest.FixtureRequest, stack: ExitStack) -> Peer:
    tmp_path: Path = request.getfixturevalue("tmp_path")
    key = {"master_secret": MASTER.hex()}
    prefix = f"wave/{next(NUMBERS)}"
    if kind == "memory":
        peer = Peer(kind, connection("memory", **key))
        stack.callback(peer.close)
        return peer
    if kind == "offline":
        folders = [tmp_path / "first", tmp_path / "second"]
        for folder in folders:
            folder.mkdir()
        return Peer(kind, connection("offline", folders=", ".join(map(str, folders)), **key))
    if kind == "loop":
        if os.geteuid():
            pytest.skip("only root attaches loop devices")
        return Peer(kind, connection("offline", folders=str(stack.enter_context(disk(tmp_path, "disk"))), **key))
    if kind == "moto":
        url = request.getfixturevalue("moto")
        role = {"role_arn": "arn:aws:iam::123456789012:role/archives", "sts_endpoint": url}
        about = {**BUCKET, "endpoint": url, "region": "us-east-1", "service": "s3", "prefix": prefix, **role}
        return Peer(kind, connection("oss", "a", "b", **about))
    if kind == "alibaba":
        world: World = request.getfixturevalue("world")
        gateway = request.getfixturevalue("gateway")

        def used(volume_id: str) -> None:
            """ECS makes no snapshot of what was never attached."""
            backend = world.backend()
            backend.attach(volume_id, gateway.id)
            backend.detach(volume_id)

        # What a client token names and the cloud does not list was deleted: find out soon.
        request.getfixturevalue("monkeypatch").setattr(inventory, "_APPEAR_SECONDS", 0.1)
        about = connection("alibaba", KEY, SECRET, **world.extra)
        return Peer(kind, about, world, used)
    world = request.getfixturevalue("archives_bucket")
    about = {**BUCKET, "endpoint": f"http://{world.cloud.oss_endpoint}", "service": kind, "prefix": prefix}
    if kind == "s3":
        return Peer(kind, connection("oss", KEY, SECRET, allow_static_keys=True, path_style="true", **about))
    role = {"role_arn": f"acs:ram::{ACCOUNT}:role/archives", "sts_endpoint": f"http://{world.cloud.endpoint}"}
    return Peer(kind, connection("oss", KEY, SECRET, **about, **role))


@pytest.fixture(params=["alibaba", *ARCHIVES])
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    """Of every kind."""
    with ExitStack() as stack:
        yield _make(request.param, request, stack)


# Like a plain folder, and like moto's, as far as archives go.
ALIKE = ("loop", "s3")


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.slow if kind in ALIKE else ()) for kind in ARCHIVES])
def place(request: pytest.FixtureRequest) -> Iterator[Peer]:
    """Of every kind that keeps archives."""
    with ExitStack() as stack:
        yield _make(request.param, request, stack)


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> Iterator[Peer]:
    with ExitStack() as stack:
        yield _make("memory", request, stack)


@pytest.fixture
def oss(request: pytest.FixtureRequest) -> Iterator[Peer]:
    with ExitStack() as stack:
        yield _make("oss", request, stack)


def descriptor_of(peer: Peer, volume_id: str) -> BucketArchive:
    found = peer.backend.sink(volume_id, Labels("", "", ""), 1)
    assert isinstance(found, BucketArchive)
    return found
