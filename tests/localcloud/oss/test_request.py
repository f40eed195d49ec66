from urllib.parse import urlencode

import pytest

from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.wire.request import Request, locate


@pytest.mark.parametrize(
    "host, path, expected",
    [
        ("127.0.0.1:80", "/", ("", "")),
        ("127.0.0.1:80", "/bucket", ("bucket", "")),
        ("127.0.0.1:80", "/bucket/", ("bucket", "")),
        ("127.0.0.1:80", "/bucket/a//b", ("bucket", "a//b")),
        ("[::1]:80", "/bucket/a%2Fb%20%C3%A9+", ("bucket", "a/b é+")),
        ("localhost", "/bucket/key", ("bucket", "key")),
        ("cloud.example", "/bucket/key", ("bucket", "key")),
        ("bucket.127.0.0.1:80", "/a/b", ("bucket", "a/b")),
        ("bucket.localhost:80", "/a/b", ("bucket", "a/b")),
        ("bucket.oss-cn-local.aliyuncs.com", "/", ("bucket", "")),
        ("bucket.oss-cn-local-internal.aliyuncs.com:80", "/key", ("bucket", "key")),
        ("bucket.s3.oss-cn-local.aliyuncs.com", "/key", ("bucket", "key")),
        ("oss-cn-local.aliyuncs.com", "/", ("", "")),
    ],
)
def test_where_bucket_and_key_are(host: str, path: str, expected: tuple[str, str]) -> None:
    assert locate(host, path) == expected


@pytest.mark.parametrize("value", ["0", "1001", "-1", "1.0", "x", "\u0661", f"{'0' * 19}19999", "9" * 5000])
def test_what_is_no_number_in_its_bounds(value: str) -> None:
    request = Request.parse("GET", "/b", urlencode({"max-keys": value}), {})
    with pytest.raises(OssError, match="InvalidArgument"):
        request.number("max-keys", 100, 1, 1000)


def test_numbers() -> None:
    request = Request.parse("GET", "/b", "max-keys=0999&parts=", {})
    assert request.number("max-keys", 100, 1, 1000) == 999
    assert request.number("parts", 100, 1, 1000) == request.number("other", 100, 1, 1000) == 100


def test_by_its_own_name_oss_takes_no_paths() -> None:
    with pytest.raises(OssError, match="SecondLevelDomainForbidden"):
        locate("oss-cn-local.aliyuncs.com", "/bucket/key")


def test_keys_are_utf_8() -> None:
    with pytest.raises(OssError, match="InvalidObjectName"):
        locate("127.0.0.1", "/bucket/%ff")
