"""A bad day of the store: what a caller notices of it, and what it does not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.stores.conftest import KINDS
from wavelift.localcloud.faults.rules import Rule
from wavelift.localcloud.server import LocalCloud
from wavelift.stores.base import AlreadyThere, Corrupted, Denied, Store, Unavailable
from wavelift.stores.bucket import BadBucket, Bucket
from wavelift.stores.oss import OssStore
from wavelift.stores.patience import Patience
from wavelift.stores.s3 import S3Store

DATA = os.urandom(100_000)
Fault = Callable[..., None]


@pytest.fixture(params=["oss", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> Store:
    """In a bucket."""
    return KINDS[request.param](tmp_path, bucket)


@pytest.fixture
def fault(cloud: LocalCloud) -> Iterator[Fault]:
    """`fault("throttle", action="PutObject", times=2)`"""

    def add(kind: str, **fields: Any) -> None:
        cloud.faults.add([Rule.model_validate({"fault": {"kind": kind}, "service": "oss", **fields})])

    yield add
    cloud.faults.reset()


@pytest.mark.parametrize("kind", ["throttle", "internal-error", "unavailable", "bad-gateway", "reset", "drop-reply"])
def test_two_failures_are_nobodys_business(store: Store, fault: Fault, kind: str) -> None:
    fault(kind, times=2)
    store.put("a/1", DATA, new=True)
    fault(kind, times=2)
    assert store.get("a/1") == DATA
    fault(kind, times=2)
    assert [entry.key for entry in store.list("a/")] == ["a/1"]
    fault(kind, times=2)
    store.delete(["a/1"])
    assert list(store.list("")) == []


def test_a_lost_reply_does_not_hide_that_another_was_first(store: Store, fault: Fault) -> None:
    store.put("a/1", b"another's")
    fault("drop-reply", action="PutObject", times=1)
    fault("unavailable", action="PutObject", times=1)
    with pytest.raises(AlreadyThere):
        store.put("a/1", DATA, new=True)
    assert store.get("a/1") == b"another's"


@pytest.mark.parametrize("kind", [OssStore, S3Store])
def test_silence_is_not_taken_for_an_object_that_is_not_there(
    bucket: Bucket, fault: Fault, kind: type[OssStore | S3Store]
) -> None:
    store = kind(bucket, Patience(0.1))
    fault("reset")
    for ask in (lambda: store.get("a/1"), lambda: store.size("a/1"), lambda: list(store.list(""))):
        with pytest.raises(Unavailable) as caught:
            ask()
        assert caught.value.retryable


def test_a_right_that_lacks_is_named_at_once(store: Store, fault: Fault) -> None:
    fault("forbidden", action="PutObject")
    with pytest.raises(Denied, match="AccessDenied") as caught:
        store.put("a/1", DATA)
    assert "credentials" in caught.value.remedy


def test_a_wrong_secret_is_denied(bucket: Bucket) -> None:
    wrong = Bucket(bucket.endpoint, bucket.bucket, "", bucket.region, bucket.access_key_id, "no", by_path=True)
    for store in (OssStore(wrong), S3Store(wrong)):
        with pytest.raises(Denied):
            store.put("a/1", DATA)


def test_an_object_that_comes_damaged_is_got_again(bucket: Bucket, fault: Fault) -> None:
    store = OssStore(bucket)
    store.put("a/1", DATA)
    fault("corrupt-body", times=1)
    assert store.get("a/1") == DATA
    fault("corrupt-body")
    with pytest.raises(Corrupted):
        OssStore(bucket, Patience(0.5)).get("a/1")


def test_an_object_that_ends_early_is_got_again(store: Store, fault: Fault) -> None:
    store.put("a/1", DATA)
    fault("truncated-body", times=1)
    assert store.get("a/1") == DATA


@pytest.mark.parametrize("kind", [OssStore, S3Store])
@pytest.mark.parametrize("change", [{"bucket": "Not_a_name!"}, {"endpoint": "no url"}])
def test_a_bucket_that_cannot_be_is_named(
    bucket: Bucket, kind: type[OssStore | S3Store], change: dict[str, str]
) -> None:
    """At once: it is not a store that does not answer."""
    wrong, tries = replace(bucket, **change), list[float]()
    with pytest.raises(BadBucket) as caught:
        kind(wrong, Patience(60, tries.append)).get("a/1")
    assert (caught.value.code, caught.value.bucket, caught.value.endpoint) == (
        "bad_bucket",
        wrong.bucket,
        wrong.endpoint,
    )
    assert wrong.bucket in caught.value.message and caught.value.remedy and tries == []
