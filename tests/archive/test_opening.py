"""Archives by descriptor and by text, in the buckets of the local cloud and on disks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.archive.disk import MASTER, MIB, Disk
from tests.stores.conftest import bucket, cloud  # noqa: F401  fixtures
from wavelift.archive.archive import Archive
from wavelift.archive.descriptor import BucketArchive, DisksArchive
from wavelift.archive.errors import KeyMissing, NoArchive
from wavelift.archive.keys import BadKey, archive_secret, derived, read_master
from wavelift.archive.opening import BadPlace, Place, open_archive, opened, parse_place
from wavelift.archive.verify import verify
from wavelift.stores.base import Denied
from wavelift.stores.bucket import Bucket
from wavelift.stores.directory import DirectoryStore
from wavelift.stores.oss import OssStore

SECRET = bytes(range(32)).hex()


def described(service: Any, where: Bucket, **change: str) -> BucketArchive:
    fields = {
        "endpoint": where.endpoint,
        "bucket": where.bucket,
        "prefix": where.prefix,
        "region": where.region,
        "access_key_id": where.access_key_id,
        "access_key_secret": where.access_key_secret,
    }
    return BucketArchive(service=service, by_path=True, **{**fields, **change})


@pytest.mark.parametrize("service", ["oss", "s3"])
def test_a_bucket_holds_a_sealed_archive(service: str, bucket: Bucket, tmp_path: Path) -> None:  # noqa: F811
    """Made by who has the master, filled and read by who has the key of this archive alone."""
    made = Archive.create(OssStore(bucket), key=derived(bytes.fromhex(SECRET)))
    key = archive_secret(bytes.fromhex(SECRET), made.id).hex()
    disk = Disk(tmp_path, key=MASTER)
    disk.archive = open_archive(described(service, bucket, key=key))
    disk.store, disk.key = disk.archive.bare, MASTER
    disk.noise(0, 3 * MIB)
    disk.copy(1, None)
    disk.noise(MIB, 100)
    disk.copy(2, 1)
    assert disk.read() == disk.path.read_bytes() and verify(disk.archive, 2).restorable
    with pytest.raises(KeyMissing):
        open_archive(described(service, bucket))
    with pytest.raises(KeyMissing):
        open_archive(described(service, bucket, key="00" * 32))


@pytest.mark.parametrize("service", ["oss", "s3"])
def test_renewed_credentials_are_used_from_the_next_call_on(service: str, bucket: Bucket) -> None:  # noqa: F811
    now = [described(service, bucket)]
    archive = open_archive(lambda: now[0], create=True)
    now[0] = described(service, bucket, access_key_secret="expired")
    with pytest.raises(Denied):
        archive.generations()
    now[0] = described(service, bucket)
    assert archive.generations() == []


def test_disks_and_a_plain_folder(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    descriptor = DisksArchive(folders=[str(first), str(second)], prefix="volumes/web", key=SECRET)
    made = open_archive(descriptor, create=True)
    assert open_archive(descriptor).id == open_archive(descriptor, create=True).id == made.id and made.sealed
    with pytest.raises(NoArchive):
        open_archive(DisksArchive(folders=[str(first), str(second)], prefix="volumes/other"))
    plain = tmp_path / "plain"
    plain.mkdir()
    opened(DirectoryStore(plain), None, create=True)
    assert not open_archive(DisksArchive(folders=[str(plain)], prefix="")).sealed
    # A folder may be plain for who has a key for others.
    assert not parse_place(f"folder:{plain}").open(MASTER).sealed


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("folder:a/b", Place("folder:", "a/b", "")),
        ("folder:a@b@12", Place("folder:", "a@b", "", 12)),
        ("offline:/m/a,/m/b", Place("offline:", "/m/a,/m/b", "")),
        ("offline:/m/a:volumes/web@3", Place("offline:", "/m/a", "volumes/web", 3)),
        ("oss://bkt", Place("oss://", "bkt", "")),
        ("oss://bkt/web/1/@7", Place("oss://", "bkt", "web/1", 7)),
        ("s3://bkt/web", Place("s3://", "bkt", "web")),
    ],
)
def test_places(text: str, place: Place) -> None:
    assert parse_place(text, generation=True) == place
    plain = replace(place, generation=None)
    assert parse_place(plain.text).text == plain.text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "disk.raw",
        "folder:",
        "offline:a,",
        "oss://",
        "oss:///x",
        "oss://No",
        "oss://a.b.c",
        "oss://bkt/../c",
        "s3://bkt//c",
    ],
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(BadPlace):
        parse_place(text, generation=True)


def test_what_is_missing_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET", "OSS_REGION"):
        monkeypatch.delenv(name, raising=False)
        with pytest.raises(BadPlace, match=name):
            parse_place("oss://bkt").store()
        monkeypatch.setenv(name, "cn-x")
    assert parse_place("oss://bkt/web").store().name == "oss://bkt/web"


@pytest.mark.parametrize("text", ["", "abc", "zz" * 32, "00" * 31, "00 " * 32])
def test_what_is_no_key(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(BadKey):
        read_master(tmp_path / "key")
    with pytest.raises(BadKey):
        read_master(tmp_path / "none")
    (tmp_path / "key").write_text(SECRET + "\n")
    assert read_master(tmp_path / "key") == bytes(range(32))
