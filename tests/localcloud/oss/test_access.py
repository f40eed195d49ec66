"""What keys with a session policy may do, and what those may who have none."""

from collections.abc import Callable
from typing import Any

import oss2
import pytest
from oss2.exceptions import AccessDenied

from wavelift.localcloud.accounts import ACCOUNT

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


def statement(effect: str, action: str, resource: str) -> dict[str, Any]:
    return {"Effect": effect, "Action": [action], "Resource": [resource]}


def temporary(oss: Any, name: str, *statements: dict[str, Any], role: str = "") -> oss2.Bucket:
    found = oss.accounts.issue(60, {"Version": "1", "Statement": list(statements)}, role)
    return oss.bucket(name, oss2.StsAuth(found.key, found.secret, found.token))


def limited(oss: Any, name: str, *statements: tuple[str, str], place: str = "*:*") -> oss2.Bucket:
    return temporary(oss, name, *(statement("Allow", a, f"acs:oss:{place}:{r}") for a, r in statements))


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


@pytest.mark.parametrize("region", ["cn-local", "oss-cn-local", "*"])
@pytest.mark.parametrize("account", [ACCOUNT, "*"])
def test_a_policy_names_region_and_account(oss: Any, filled: str, region: str, account: str) -> None:
    check(limited(oss, filled, ("oss:*", f"{filled}/*"), place=f"{region}:{account}"), [read, write], [listing])
    refusing = statement("Deny", "*", f"acs:oss:{region}:{account}:{filled}/a")
    check(temporary(oss, filled, statement("Allow", "*", "*"), refusing), [write, listing], [read, delete])


@pytest.mark.parametrize("place", ["cn-beijing:*", "oss-cn-beijing:*", "*:1"])
def test_a_policy_for_elsewhere_says_nothing_here(oss: Any, filled: str, place: str) -> None:
    check(limited(oss, filled, ("oss:*", f"{filled}*"), place=place), [], [read, write, listing])
    refusing = statement("Deny", "*", f"acs:oss:{place}:*")
    check(temporary(oss, filled, statement("Allow", "*", "*"), refusing), [read, write, listing], [])


def test_the_account_is_that_of_the_role(oss: Any, filled: str) -> None:
    own, other = (statement("Allow", "oss:*", f"acs:oss:*:{account}:*") for account in (ACCOUNT, "1"))
    role = "acs:ram::1:role/migration"
    check(temporary(oss, filled, other, role=role), [read, listing], [])
    check(temporary(oss, filled, own, role=role), [], [read, listing])


def test_a_copy_needs_the_right_to_read(oss: Any, filled: str) -> None:
    def copy(bucket: oss2.Bucket) -> None:
        bucket.copy_object(filled, "a", "b")

    check(limited(oss, filled, ("oss:PutObject", f"{filled}/*")), [write], [copy])
    check(
        limited(oss, filled, ("oss:PutObject", f"{filled}/b"), ("oss:GetObject", f"{filled}/a")),
        [copy],
        [delete],
    )


@pytest.mark.parametrize("header", [None, {"x-oss-object-acl": "public-read"}])
def test_an_acl_needs_its_own_right(oss: Any, filled: str, header: dict[str, str] | None) -> None:
    makes: list[Act] = [
        lambda bucket: bucket.put_object("b", b"", headers=header),
        lambda bucket: bucket.append_object("c", 0, b"", headers=header),
        lambda bucket: bucket.copy_object(filled, "a", "d", headers=header),
        lambda bucket: bucket.init_multipart_upload("e", headers=header),
    ]
    put = [("oss:PutObject", f"{filled}/*"), ("oss:GetObject", f"{filled}/*")]
    allowed, denied = (makes, []) if header is None else ([], makes)
    check(limited(oss, filled, *put), allowed, denied)
    oss.bucket(filled).batch_delete_objects(["b", "c", "d"])
    check(limited(oss, filled, *put, ("oss:PutObjectAcl", f"{filled}/*")), makes, [])


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


@pytest.mark.parametrize("operator", ["StringLike", "StringEquals"])
def test_a_condition_limits_what_is_listed(oss: Any, name: str, operator: str) -> None:
    whole = oss.bucket(name)
    for key in ("mine/1", "mine/2", "other/1"):
        whole.put_object(key, b"")
    wanted = {"StringLike": ["mine/*"], "StringEquals": "mine/"}[operator]
    listed = statement("Allow", "oss:ListObjects", f"acs:oss:*:*:{name}") | {
        "Condition": {operator: {"oss:Prefix": wanted}}
    }
    bucket = temporary(oss, name, listed)
    for ask in (bucket.list_objects, bucket.list_objects_v2):
        assert [each.key for each in ask(prefix="mine/").object_list] == ["mine/1", "mine/2"]
        for prefix in ("", "mine", "other/"):
            with pytest.raises(AccessDenied):
                ask(prefix=prefix)
    check(bucket, [], [read, write, delete, listing])
