"""Stores of every kind, empty; those in buckets lie in the local cloud."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wavelift.localcloud.accounts import Accounts
from wavelift.localcloud.faults.calls import Faults
from wavelift.localcloud.listener import Listener
from wavelift.localcloud.oss.model.store import ObjectStore
from wavelift.localcloud.oss.service import ObjectService
from wavelift.stores.base import Store
from wavelift.stores.bucket import Bucket
from wavelift.stores.directory import DirectoryStore
from wavelift.stores.memory import MemoryStore
from wavelift.stores.oss import OssStore
from wavelift.stores.s3 import S3Store

KEY, SECRET, REGION = "LOCALTEST", "a secret for tests", "cn-local"
NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a local OSS with the bucket "packs"."""
    store, accounts = ObjectStore(tmp_path_factory.mktemp("oss") / "oss"), Accounts({KEY: SECRET}, b"seal")
    store.buckets.put("packs", None, "Standard")
    service, listener = ObjectService(store, accounts, REGION, Faults()), Listener("oss", ("127.0.0.1", 0))
    listener.start(service)
    yield f"http://{listener.endpoint}"
    listener.stop()
    service.close()
    store.close()


@pytest.fixture
def bucket(endpoint: str) -> Bucket:
    """A prefix of its own."""
    return Bucket(endpoint, "packs", f"wave/{next(NUMBERS)}", REGION, KEY, SECRET, by_path=True)


KINDS: dict[str, Callable[[Path, Bucket], Store]] = {
    "memory": lambda _folder, _bucket: MemoryStore(),
    "directory": lambda folder, _bucket: DirectoryStore(folder),
    "oss": lambda _folder, bucket: OssStore(bucket),
    "s3": lambda _folder, bucket: S3Store(bucket),
}


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> Store:
    return KINDS[request.param](tmp_path, bucket)
