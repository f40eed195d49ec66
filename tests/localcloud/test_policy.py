import json
from typing import Any

import pytest

from wavelift.localcloud.policy import MalformedPolicy, allows, parse

DISK = "acs:ecs:cn-local:1:disk/d-1"


def policy(*statements: tuple[str, Any, Any]) -> dict[str, Any]:
    listed = [{"Effect": effect, "Action": action, "Resource": resource} for effect, action, resource in statements]
    return parse(json.dumps({"Version": "1", "Statement": listed}))


def test_no_policy_limits_nothing() -> None:
    assert allows(None, "ecs:DeleteDisk", DISK)


@pytest.mark.parametrize(
    ("pattern", "action", "expected"),
    [
        ("*", "oss:PutObject", True),
        ("ecs:*", "ecs:DeleteDisk", True),
        ("ecs:Describe*", "ecs:DescribeDisks", True),
        ("ecs:describedisks", "ecs:DescribeDisks", True),
        ("ecs:Describe*", "ecs:DeleteDisk", False),
        ("ecs:Describe*", "oss:ecs:DescribeDisks", False),
        ("ecs:D?skA", "ecs:DiskA", True),
        ("ecs:D?skA", "ecs:DskA", False),
        ("ecs.*", "ecs:DeleteDisk", False),
    ],
)
def test_actions(pattern: str, action: str, expected: bool) -> None:
    assert allows(policy(("Allow", pattern, "*")), action, DISK) is expected


def test_resources_keep_their_case() -> None:
    one = policy(("Allow", "oss:GetObject", ["acs:oss:*:*:bucket/a/*", "acs:oss:*:*:other"]))
    assert allows(one, "oss:GetObject", "acs:oss:cn-local:1:bucket/a/b/c")
    assert allows(one, "oss:GetObject", "acs:oss:cn-local:1:other")
    assert not allows(one, "oss:GetObject", "acs:oss:cn-local:1:Bucket/a/b")
    assert not allows(one, "oss:GetObject", "acs:oss:cn-local:1:bucket/b")


@pytest.mark.parametrize("resource", ["acs:oss:cn-local:1:b/a", "acs:oss:oss-cn-local:1:b/a", "acs:oss:*:1:b/*"])
def test_what_has_two_names_is_meant_by_either(resource: str) -> None:
    names = "acs:oss:cn-local:1:b/a", "acs:oss:oss-cn-local:1:b/a"
    assert allows(policy(("Allow", "*", resource)), "oss:GetObject", *names)
    assert not allows(policy(("Allow", "*", "*"), ("Deny", "*", resource)), "oss:GetObject", *names)
    for other in ("acs:oss:cn-beijing:1:b/a", "acs:oss:cn-local:2:b/a"):
        assert not allows(policy(("Allow", "*", other)), "oss:GetObject", *names)
        assert allows(policy(("Allow", "*", "*"), ("Deny", "*", other)), "oss:GetObject", *names)


def test_a_deny_wins_wherever_it_stands() -> None:
    statements = (("Allow", "*", "*"), ("Deny", "ecs:Delete*", "*"))
    for order in (statements, statements[::-1]):
        assert not allows(policy(*order), "ecs:DeleteDisk", DISK)
        assert allows(policy(*order), "ecs:CreateDisk", DISK)


@pytest.mark.parametrize(
    "change",
    [
        {"Version": "2"},
        {"Version": 1},
        {"Statement": []},
        {"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}},
        {"Statement": [{"Effect": "Allow", "Action": "*"}]},
        {"Statement": [{"Effect": "Maybe", "Action": "*", "Resource": "*"}]},
        {"Statement": [{"Effect": "Allow", "Action": [], "Resource": "*"}]},
        {"Statement": [{"Effect": "Allow", "Action": [1], "Resource": "*"}]},
        *(
            {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition}]}
            for condition in (
                {"Bool": {"acs:SecureTransport": "true"}},
                {"StringLike": {"oss:Delimiter": "/"}},
                {"StringLike": {"oss:Prefix": []}},
                {"StringLike": "oss:Prefix"},
                "oss:Prefix",
            )
        ),
        {"Statement": [{"Effect": "Allow", "NotAction": "*", "Resource": "*"}]},
        {"Id": "x"},
    ],
)
def test_what_is_not_evaluated_is_refused(change: dict[str, Any]) -> None:
    good = {"Version": "1", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    parse(json.dumps(good))
    with pytest.raises(MalformedPolicy):
        parse(json.dumps(good | change))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 2000, '"text"', '{"Version": "1", "Statement": [1]}'])
def test_no_policy_at_all(text: str) -> None:
    with pytest.raises(MalformedPolicy):
        parse(text)
