"""Stores of every kind, empty; those in buckets lie in the local cloud."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import oss2
import pytest

from tests.localcloud.conftest import KEY, REGION, SECRET
from tests.stores.disks import AS_ROOT, disk
from wavelift.archive.sealed import SealedStore
from wavelift.blocks.crypto import KeyEncryptionKey
from wavelift.localcloud.server import LocalCloud, Options
from wavelift.stores.base import Store
from wavelift.stores.bucket import Bucket
from wavelift.stores.directory import DirectoryStore
from wavelift.stores.memory import MemoryStore
from wavelift.stores.offline import OfflineStore
from wavelift.stores.oss import OssStore
from wavelift.stores.prefixed import PrefixedStore
from wavelift.stores.s3 import S3Store

NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """With the bucket "packs"."""
    with LocalCloud(tmp_path_factory.mktemp("cloud"), {KEY: SECRET}, Options(grace=1.0)) as running:
        url = f"http://{running.oss_endpoint}"
        oss2.Bucket(oss2.AuthV4(KEY, SECRET), url, "packs", region=REGION, is_path_style=True).create_bucket()
        yield running


@pytest.fixture
def bucket(cloud: LocalCloud) -> Bucket:
    """A prefix of its own."""
    return Bucket(f"http://{cloud.oss_endpoint}", "packs", f"wave/{next(NUMBERS)}", REGION, KEY, SECRET, by_path=True)


def made(*folders: Path) -> list[Path]:
    for folder in folders:
        folder.mkdir()
    return list(folders)


KINDS: dict[str, Callable[[Path, Bucket], Store]] = {
    "memory": lambda _folder, _bucket: MemoryStore(),
    "directory": lambda folder, _bucket: DirectoryStore(folder),
    "offline": lambda folder, _bucket: OfflineStore.create(made(folder / "first", folder / "second")),
    "prefixed": lambda _folder, _bucket: PrefixedStore(MemoryStore(), "a/b"),
    "sealed": lambda _folder, _bucket: SealedStore(MemoryStore(), KeyEncryptionKey(bytes(32))),
    "oss": lambda _folder, bucket: OssStore(bucket),
    "s3": lambda _folder, bucket: S3Store(bucket),
}


FILE_SYSTEMS = {"offline on ext4": "ext4", "offline on exfat": "exfat"}
WITH_DISKS = [pytest.param(name, marks=pytest.mark.skipif(not AS_ROOT, reason="mounts")) for name in FILE_SYSTEMS]


@pytest.fixture(params=[*KINDS, *WITH_DISKS])
def store(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> Iterator[Store]:
    kind = FILE_SYSTEMS.get(request.param)
    if kind is None:
        yield KINDS[request.param](tmp_path, bucket)
        return
    with disk(tmp_path, "first", kind=kind) as first, disk(tmp_path, "second", kind=kind) as second:
        yield OfflineStore.create([first, second])
