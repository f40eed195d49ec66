"""What keys with a session policy may do, and what those may who have none."""

from collections.abc import Callable
from typing import Any

import oss2
import pytest
from oss2.exceptions import AccessDenied

Act = Callable[[oss2.Bucket], object]


def read(bucket: oss2.Bucket) -> None:
    bucket.get_object("a").read()


def head(bucket: oss2.Bucket) -> None:
    bucket.head_object("a")


def write(bucket: oss2.Bucket) -> None:
    bucket.put_object("b", b"")


def delete(bucket: oss2.Bucket) -> None:
    bucket.delete_object("a")


def listing(bucket: oss2.Bucket) -> None:
    bucket.list_objects()


def change_acl(bucket: oss2.Bucket) -> None:
    bucket.put_bucket_acl("public-read")


def limited(oss: Any, name: str, *statements: tuple[str, str]) -> oss2.Bucket:
    policy = {
        "Version": "1",
        "Statement": [{"Effect": "Allow", "Action": [a], "Resource": [f"acs:oss:*:*:{r}"]} for a, r in statements],
    }
    found = oss.accounts.issue(60, policy)
    return oss.bucket(name, oss2.StsAuth(found.key, found.secret, found.token))


def check(bucket: oss2.Bucket, allowed: list[Act], denied: list[Act]) -> None:
    for act in denied:
        with pytest.raises(AccessDenied):
            act(bucket)
    for act in allowed:
        act(bucket)


@pytest.fixture
def filled(oss: Any, name: str) -> str:
    oss.bucket(name).put_object("a", b"content")
    return name


def test_a_policy_limits(oss: Any, filled: str) -> None:
    check(limited(oss, filled, ("oss:GetObject", f"{filled}/*")), [read, head], [write, delete, listing, change_acl])
    check(limited(oss, filled, ("oss:List*", filled)), [listing], [read, write])
    check(limited(oss, filled, ("oss:*", f"{filled}/b")), [write], [read, delete, listing])
    check(limited(oss, filled, ("oss:*", "elsewhere*")), [], [read, write, listing])


def test_a_copy_needs_the_right_to_read(oss: Any, filled: str) -> None:
    def copy(bucket: oss2.Bucket) -> None:
        bucket.copy_object(filled, "a", "b")

    check(limited(oss, filled, ("oss:PutObject", f"{filled}/*")), [write], [copy])
    check(
        limited(oss, filled, ("oss:PutObject", f"{filled}/b"), ("oss:GetObject", f"{filled}/a")),
        [copy],
        [delete],
    )


def test_a_batch_needs_the_right_for_each(oss: Any, filled: str) -> None:
    bucket = limited(oss, filled, ("oss:DeleteObject", f"{filled}/b"))
    with pytest.raises(AccessDenied):
        bucket.batch_delete_objects(["b", "a"])
    assert oss.bucket(filled).object_exists("a")
    bucket.batch_delete_objects(["b"])
    nobody = oss.bucket(filled, oss2.AnonymousAuth())
    with pytest.raises(AccessDenied):
        nobody.batch_delete_objects(["a"])


@pytest.mark.parametrize(
    "acl, own, allowed",
    [
        ("private", "default", []),
        ("public-read", "default", [read, head]),
        ("public-read-write", "default", [read, head, write, delete]),
        ("public-read-write", "private", [write]),
        ("private", "public-read", [read, head]),
    ],
)
def test_anybody(oss: Any, filled: str, acl: str, own: str, allowed: list[Act]) -> None:
    owner = oss.bucket(filled)
    owner.put_bucket_acl(acl)
    owner.put_object_acl("a", own)
    denied = [act for act in (read, write, delete, listing, change_acl) if act not in allowed]
    check(oss.bucket(filled, oss2.AnonymousAuth()), allowed, denied)
