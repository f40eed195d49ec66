"""npm's ali-oss, by both of its signatures."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.localcloud.conftest import KEY, SECRET

NAME = "folder/a b+c é~'(*)&%.bin"


@pytest.mark.parametrize("v4", [False, True], ids=["V1", "V4"])
def test_ali_oss(server: Any, run_node: Callable[..., Any], v4: bool) -> None:
    bucket = f"node-{'v4' if v4 else 'v1'}"
    statement = {"Effect": "Allow", "Action": "oss:PutObject", "Resource": f"acs:oss:*:*:{bucket}/mine"}
    temporary = server.accounts.issue(60, {"Version": "1", "Statement": [statement]})
    found = run_node(
        "ali_oss.js",
        endpoint=server.oss_endpoint,
        key=KEY,
        secret=SECRET,
        bucket=bucket,
        v4=v4,
        temporary={"key": temporary.key, "secret": temporary.secret, "token": temporary.token},
    )
    assert found == {
        "buckets": [bucket],
        "content": "content",
        "head": {"owner": "me", "type": "text/x"},
        "range": "ont",
        "log": "onetwo",
        "late": {"code": "PositionNotEqualToLength", "status": 409},
        "once": {"code": "FileAlreadyExists", "status": 409},
        "names": ["copy", NAME, "log"],
        "folders": ["folder/"],
        "byUrl": "content",
        "large": True,
        "uploads": 0,
        "acl": "public-read",
        "missing": {"code": "NoSuchKey", "status": 404},
        "wrongSecret": {"code": "SignatureDoesNotMatch", "status": 403},
        "notEmpty": {"code": "BucketNotEmpty", "status": 409},
        "deleted": [NAME, "copy", "log", "large"],
        "denied": {"code": "AccessDenied", "status": 403},
    }
