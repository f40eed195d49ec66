import dataclasses
from typing import Any

import pytest

from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.model.values import Kind, Meta, Object
from wavelift.localcloud.oss.wire import headers
from wavelift.localcloud.oss.wire.request import Request

FOUND = Object("b", "k", 1, 10, "AB" * 16, 2**64 - 1, 1_700_000_000, Kind.NORMAL, Meta())


def request(query: str = "", **given: str) -> Request:
    return Request.parse("GET", "/b/k", query, {name.replace("_", "-"): value for name, value in given.items()})


def refused(code: str, call: Any, *arguments: Any) -> None:
    with pytest.raises(OssError) as caught:
        call(*arguments)
    assert caught.value.code == code


def test_what_is_said_of_an_object_depends_on_who_asks() -> None:
    said = {"user-agent": "x", "content-type": "a/b", "x-oss-meta-one": "1", "x-amz-meta-two": "2"}
    assert headers.meta_of(request(**said)).user == {"one": "1"}
    s3 = headers.meta_of(request(**said, authorization="AWS4-HMAC-SHA256 x"))
    assert s3.user == {"two": "2"} and s3.headers == {"content-type": "a/b"}
    found = dataclasses.replace(FOUND, meta=s3)
    assert headers.describe(found, request())["x-oss-meta-two"] == "2"
    assert headers.describe(found, request("X-Amz-Algorithm=AWS4-HMAC-SHA256"))["x-amz-meta-two"] == "2"


def test_describe() -> None:
    said = headers.describe(FOUND, request())
    assert said["ETag"] == f'"{"AB" * 16}"'
    assert said["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert said["x-oss-hash-crc64ecma"] == "18446744073709551615"
    assert said["Content-MD5"] == "q6urq6urq6urq6urq6urqw=="
    parts = dataclasses.replace(FOUND, etag="AB" * 16 + "-2", kind=Kind.MULTIPART)
    assert "Content-MD5" not in headers.describe(parts, request())


@pytest.mark.parametrize(
    "name, value, code",
    [
        ("x_oss_object_acl", "everybody", "InvalidArgument"),
        ("x_oss_storage_class", "Cheap", "InvalidArgument"),
        ("x_oss_tagging", "a=1&a=2", "InvalidTag"),
        ("x_oss_tagging", "&".join(f"k{n}=v" for n in range(11)), "InvalidTag"),
    ],
)
def test_what_cannot_be_said(name: str, value: str, code: str) -> None:
    refused(code, headers.meta_of, request(**{name: value}))


@pytest.mark.parametrize("name", ["Standard", "ia", "STANDARD_IA", "Archive"])
def test_storage_classes(name: str) -> None:
    assert headers.storage_class_of(request(x_oss_storage_class=name)).lower() in name.lower().replace("standard_", "")


def test_overrides() -> None:
    found = headers.overrides(request("response-content-disposition=a%C3%A9&response-server=x&response-expires=0"))
    assert found == {"Content-Disposition": "a\u00c3\u00a9", "Expires": "0"}
    refused("InvalidArgument", headers.overrides, request("response-content-type=a%0D%0AX-Injected:1"))


@pytest.mark.parametrize("source", ["/there/a%20b%2Bé", "there/a%20b%2B%C3%A9"])
def test_the_source_of_a_copy(source: str) -> None:
    raw = source.encode().decode("latin-1")
    assert headers.copy_source(request(x_oss_copy_source=raw)) == ("there", "a b+é")


@pytest.mark.parametrize("source", ["", "/", "/there", "/there/", "/there/%ff"])
def test_what_is_no_source_of_a_copy(source: str) -> None:
    refused("InvalidArgument", headers.copy_source, request(x_oss_copy_source=source))


def test_a_version_cannot_be_copied() -> None:
    refused("NotImplemented", headers.copy_source, request(x_oss_copy_source="/there/a?versionId=x"))


def test_conditions() -> None:
    etag, same = "ab" * 16, "Tue, 14 Nov 2023 22:13:20 GMT"
    for given, code in [
        ({"if-match": f'"{etag}"'}, None),
        ({"if-match": f'"x", {etag}'}, None),
        ({"if-match": "x"}, "PreconditionFailed"),
        ({"if-none-match": etag}, "NotModified"),
        ({"if-modified-since": same}, "NotModified"),
        ({"if-modified-since": same, "if-none-match": "x"}, None),
        ({"if-unmodified-since": same}, None),
        ({"if-modified-since": same, "if-match": "x"}, "PreconditionFailed"),
        ({"if-modified-since": "never"}, None),
        ({"if-modified-since": f"Fri, 31 Dec {'9' * 20} 23:59:59 GMT"}, None),
    ]:
        check = headers.conditions(given)
        if code is None:
            check(FOUND)
        else:
            refused(code, check, FOUND)
        prefixed = headers.conditions({f"x-oss-copy-source-{name}": value for name, value in given.items()})
        prefixed(FOUND)
