"""Whole life cycles through the older Python SDK, by both of its signatures."""

import base64
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import oss2
import pytest
from oss2.exceptions import (
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    NotModified,
    PositionNotEqualToLength,
    PreconditionFailed,
    ServerError,
)
from oss2.models import (
    BatchDeleteObjectVersion,
    BatchDeleteObjectVersionList,
    BucketCreateConfig,
    BucketLifecycle,
    LifecycleExpiration,
    LifecycleRule,
    PartInfo,
    Tagging,
    TaggingRule,
)

NAME = "folder/a b+c é~'(*)&%.bin"
PART = 100 * 1024


def refused(call: Callable[[], Any], status: int, code: str) -> dict[str, str]:
    with pytest.raises(ServerError) as caught:
        call()
    assert (caught.value.status, caught.value.code) == (status, code), caught.value
    details: dict[str, str] = caught.value.details
    return details


def test_an_object_from_put_to_delete(bucket: oss2.Bucket) -> None:
    content = os.urandom(200_000)
    headers = {
        "x-oss-meta-owner": "somebody",
        "Content-Type": "application/x-disk",
        "Cache-Control": "no-cache",
        "Content-Disposition": 'attachment; filename="é"'.encode().decode("latin-1"),
        "x-oss-storage-class": "IA",
    }
    put = bucket.put_object(NAME, content, headers=headers)
    got = bucket.get_object(NAME)
    assert got.read() == content
    assert put.crc == got.server_crc == got.client_crc
    assert got.etag == put.etag and got.content_type == "application/x-disk"
    head = bucket.head_object(NAME)
    assert (head.content_length, head.object_type) == (200_000, "Normal")
    assert head.headers["x-oss-meta-owner"] == "somebody"
    assert head.headers["x-oss-storage-class"] == "IA"
    assert head.headers["Content-Disposition"].encode("latin-1").decode() == 'attachment; filename="é"'
    assert abs(head.last_modified - time.time()) < 60
    meta = bucket.get_object_meta(NAME)
    assert (meta.content_length, meta.etag) == (200_000, put.etag)
    assert bucket.object_exists(NAME)
    bucket.delete_object(NAME)
    bucket.delete_object(NAME)
    assert not bucket.object_exists(NAME)
    with pytest.raises(NoSuchKey) as missing:
        bucket.get_object(NAME)
    assert missing.value.details["Key"] == NAME
    refused(lambda: bucket.head_object(NAME), 404, "NoSuchKey")


def test_ranges(bucket: oss2.Bucket) -> None:
    bucket.put_object("a", bytes(range(100)))
    assert bucket.get_object("a", byte_range=(10, 19)).read() == bytes(range(10, 20))
    assert bucket.get_object("a", byte_range=(90, None)).read() == bytes(range(90, 100))
    assert bucket.get_object("a", byte_range=(None, 5)).read() == bytes(range(95, 100))
    part = bucket.get_object("a", byte_range=(10, 19))
    assert (part.status, part.headers["Content-Range"]) == (206, "bytes 10-19/100")
    assert part.headers["x-oss-hash-crc64ecma"] == bucket.head_object("a").headers["x-oss-hash-crc64ecma"]
    beyond = bucket.get_object("a", byte_range=(90, 120))
    assert (beyond.status, len(beyond.read())) == (200, 100)
    standard = {"x-oss-range-behavior": "standard"}
    assert len(bucket.get_object("a", byte_range=(90, 120), headers=standard).read()) == 10
    refused(lambda: bucket.get_object("a", byte_range=(100, 120), headers=standard), 416, "InvalidRange")


def test_conditions(bucket: oss2.Bucket) -> None:
    etag = bucket.put_object("a", b"x").etag
    before, after = oss2.http_date(time.time() - 100), oss2.http_date(time.time() + 100)
    for good in (
        {"If-Match": f'"{etag}"'},
        {"If-Match": "*"},
        {"If-None-Match": '"other"'},
        {"If-None-Match": '"other"', "If-Modified-Since": after},
        {"If-Modified-Since": before},
        {"If-Unmodified-Since": after},
        {"If-Modified-Since": "nonsense"},
    ):
        assert bucket.get_object("a", headers=good).read() == b"x"
    for stale in ({"If-None-Match": etag}, {"If-Modified-Since": after}):
        for read in (bucket.get_object, bucket.head_object):
            with pytest.raises(NotModified) as caught:
                read("a", headers=stale)
            assert caught.value.headers["ETag"] == f'"{etag}"'
    for failing in ({"If-Match": '"other"'}, {"If-Unmodified-Since": before}):
        with pytest.raises(PreconditionFailed):
            bucket.get_object("a", headers=failing)
        refused(lambda failing=failing: bucket.head_object("a", headers=failing), 412, "PreconditionFailed")  # type: ignore[misc]


def test_overrides_in_a_url(bucket: oss2.Bucket) -> None:
    bucket.put_object(NAME, b"x")
    wanted = {"response-content-type": "text/x; charset=utf-8", "response-content-disposition": "inline"}
    url = bucket.sign_url("GET", NAME, 60, params=wanted)
    response = httpx.get(url, trust_env=False)
    assert (response.content, response.headers["content-type"]) == (b"x", "text/x; charset=utf-8")
    assert response.headers["content-disposition"] == "inline"


def test_a_url_to_put_to(bucket: oss2.Bucket) -> None:
    url = bucket.sign_url("PUT", NAME, 60, headers={"Content-Type": "text/plain"})
    assert httpx.put(url, content=b"by url", headers={"Content-Type": "text/plain"}, trust_env=False).status_code == 200
    assert bucket.get_object(NAME).read() == b"by url"
    assert httpx.put(url, content=b"x", headers={"Content-Type": "text/html"}, trust_env=False).status_code == 403


def test_digests_of_what_comes(bucket: oss2.Bucket) -> None:
    good = base64.b64encode(bytes.fromhex("9DD4E461268C8034F5C8564E155C67A6")).decode()
    assert bucket.put_object("a", b"x", headers={"Content-MD5": good}).status == 200
    refused(lambda: bucket.put_object("a", b"y", headers={"Content-MD5": good}), 400, "BadDigest")
    refused(lambda: bucket.put_object("a", b"y", headers={"Content-MD5": "abc"}), 400, "InvalidDigest")
    assert bucket.get_object("a").read() == b"x"


def test_no_overwriting(bucket: oss2.Bucket) -> None:
    once = {"x-oss-forbid-overwrite": "true"}
    bucket.put_object("a", b"first", headers=once)
    refused(lambda: bucket.put_object("a", b"second", headers=once), 409, "FileAlreadyExists")
    refused(lambda: bucket.copy_object(bucket.bucket_name, "a", "a", headers=once), 409, "FileAlreadyExists")
    refused(lambda: bucket.init_multipart_upload("a", headers=once), 409, "FileAlreadyExists")
    upload = bucket.init_multipart_upload("a").upload_id
    part = PartInfo(1, bucket.upload_part("a", upload, 1, b"x").etag)
    refused(lambda: bucket.complete_multipart_upload("a", upload, [part], headers=once), 409, "FileAlreadyExists")
    assert bucket.get_object("a").read() == b"first"
    bucket.complete_multipart_upload("a", upload, [part])
    assert bucket.get_object("a").read() == b"x"


def test_names_that_are_refused(bucket: oss2.Bucket, oss: Any) -> None:
    refused(lambda: bucket.put_object("é" * 512, b""), 400, "InvalidObjectName")
    refused(lambda: bucket.put_object("\\a", b""), 400, "InvalidObjectName")
    gone = oss.bucket("not-there")
    for call in (lambda: gone.get_object("a"), lambda: gone.put_object("a", b""), lambda: gone.list_objects()):
        with pytest.raises(NoSuchBucket):
            call()


def test_listing(bucket: oss2.Bucket) -> None:
    names = [f"{folder}/{number}" for folder in ("a", "b b", "é\n") for number in range(7)] + ["z"]
    for each in names:
        bucket.put_object(each, each.encode())
    for iterator in (oss2.ObjectIterator, oss2.ObjectIteratorV2):
        assert [found.key for found in iterator(bucket, max_keys=4)] == sorted(names)
        folders = [(found.key, found.is_prefix()) for found in iterator(bucket, delimiter="/", max_keys=2)]
        assert folders == [("a/", True), ("b b/", True), ("z", False), ("é\n/", True)]
        assert [found.key for found in iterator(bucket, prefix="b b/", max_keys=3)] == names[7:14]
    page = bucket.list_objects(prefix="a/", max_keys=3)
    assert page.is_truncated and page.next_marker == "a/2"
    assert [(found.size, found.type, found.storage_class) for found in page.object_list] == [
        (3, "Normal", "Standard")
    ] * 3
    assert page.object_list[0].etag == bucket.head_object("a/0").etag
    assert [found.key for found in bucket.list_objects(marker="é\n/5").object_list] == ["é\n/6"]
    assert [found.key for found in bucket.list_objects_v2(start_after="é\n/5").object_list] == ["é\n/6"]
    owned = bucket.list_objects_v2(max_keys=1, fetch_owner=True).object_list[0]
    assert owned.owner.id and bucket.list_objects_v2(max_keys=1).object_list[0].owner is None
    for call in (bucket.list_objects, bucket.list_objects_v2):
        refused(lambda call=call: call(max_keys=1001), 400, "InvalidArgument")  # type: ignore[misc]


def test_delete_many(bucket: oss2.Bucket) -> None:
    names = ["a", "b/<&>", "é\n", "not there"]
    for each in names[:3]:
        bucket.put_object(each, b"")
    assert bucket.batch_delete_objects(names).deleted_keys == names
    assert list(oss2.ObjectIterator(bucket)) == []


def test_copy(bucket: oss2.Bucket) -> None:
    headers = {"x-oss-meta-a": "1", "Content-Type": "text/x", "x-oss-tagging": "k=v"}
    first = bucket.put_object(NAME, b"content", headers=headers)
    copy = bucket.copy_object(bucket.bucket_name, NAME, "copy")
    assert copy.etag == first.etag
    found = bucket.head_object("copy")
    assert (found.headers["x-oss-meta-a"], found.content_type) == ("1", "text/x")
    assert bucket.get_object_tagging("copy").tag_set.tagging_rule == {"k": "v"}
    replace = {"x-oss-metadata-directive": "REPLACE", "x-oss-meta-b": "2", "x-oss-tagging-directive": "Replace"}
    bucket.copy_object(bucket.bucket_name, NAME, "copy", headers=replace)
    found = bucket.head_object("copy")
    assert "x-oss-meta-a" not in found.headers and found.headers["x-oss-meta-b"] == "2"
    assert bucket.get_object_tagging("copy").tag_set.tagging_rule == {}
    bucket.update_object_meta("copy", {"x-oss-meta-c": "3"})
    assert bucket.head_object("copy").headers["x-oss-meta-c"] == "3"
    assert bucket.get_object("copy").read() == b"content"

    def conditional(**headers: str) -> Callable[[], Any]:
        named = {f"x-oss-copy-source-{name.replace('_', '-')}": value for name, value in headers.items()}
        return lambda: bucket.copy_object(bucket.bucket_name, NAME, "other", headers=named)

    conditional(if_match=f'"{first.etag}"')()
    refused(conditional(if_match='"other"'), 412, "PreconditionFailed")
    with pytest.raises(NotModified):
        conditional(if_none_match=f'"{first.etag}"')()
    refused(lambda: bucket.copy_object(bucket.bucket_name, "not there", "x"), 404, "NoSuchKey")
    bad = {"x-oss-metadata-directive": "maybe"}
    refused(lambda: bucket.copy_object(bucket.bucket_name, NAME, "x", headers=bad), 400, "InvalidArgument")


def test_append(bucket: oss2.Bucket) -> None:
    first = bucket.append_object("log", 0, b"one", init_crc=0)
    second = bucket.append_object("log", first.next_position, b"two", init_crc=first.crc)
    assert second.next_position == 6
    with pytest.raises(PositionNotEqualToLength) as caught:
        bucket.append_object("log", 3, b"late")
    assert caught.value.next_position == 6
    head = bucket.head_object("log")
    assert (head.object_type, head.headers["x-oss-next-append-position"]) == ("Appendable", "6")
    assert bucket.get_object("log").read() == b"onetwo"
    bucket.put_object("plain", b"x")
    refused(lambda: bucket.append_object("plain", 1, b"x"), 409, "ObjectNotAppendable")


def test_multipart(bucket: oss2.Bucket) -> None:
    content = os.urandom(2 * PART + 5)
    upload = bucket.init_multipart_upload(NAME, headers={"x-oss-meta-a": "b"}).upload_id
    other = bucket.init_multipart_upload(NAME).upload_id
    assert {found.upload_id for found in oss2.ObjectUploadIterator(bucket, NAME)} == {upload, other}
    assert [found.key for found in oss2.MultipartUploadIterator(bucket, prefix="folder/", max_uploads=1)] == [NAME] * 2
    assert bucket.list_multipart_uploads(delimiter="/").prefix_list == ["folder/"]
    parts = []
    for number, begin in ((3, 2 * PART), (1, 0), (2, PART)):
        data = content[begin : begin + PART]
        parts.append(PartInfo(number, bucket.upload_part(NAME, upload, number, data).etag, size=len(data)))
    parts.sort(key=lambda part: part.part_number)
    listed = list(oss2.PartIterator(bucket, NAME, upload, max_parts=2))
    assert [(part.part_number, part.etag, part.size) for part in listed] == [
        (part.part_number, part.etag, part.size) for part in parts
    ]
    refused(lambda: bucket.complete_multipart_upload(NAME, upload, [PartInfo(9, "x")]), 400, "InvalidPart")
    refused(lambda: bucket.upload_part(NAME, upload, 10001, b""), 400, "InvalidArgument")
    done = bucket.complete_multipart_upload(NAME, upload, parts)
    got = bucket.get_object(NAME)
    assert got.read() == content and got.client_crc == got.server_crc == done.crc
    assert done.etag.endswith("-3") and got.headers["x-oss-meta-a"] == "b"
    assert bucket.head_object(NAME).object_type == "Multipart"
    span = bucket.get_object(NAME, byte_range=(PART - 10, 2 * PART + 2)).read()
    assert span == content[PART - 10 : 2 * PART + 3]
    bucket.abort_multipart_upload(NAME, other)
    for call in (bucket.abort_multipart_upload, bucket.list_parts):
        with pytest.raises(NoSuchUpload):
            call(NAME, other)
    refused(lambda: bucket.upload_part(NAME, other, 1, b"x"), 404, "NoSuchUpload")


def test_all_parts_without_a_list(bucket: oss2.Bucket) -> None:
    upload = bucket.init_multipart_upload("a").upload_id
    bucket.upload_part("a", upload, 5, b"b" * 10)
    refused(lambda: bucket.complete_multipart_upload("a", upload, []), 400, "InvalidPart")
    bucket.upload_part("a", upload, 2, b"a" * 10)

    def complete() -> None:
        bucket.complete_multipart_upload("a", upload, None, headers={"x-oss-complete-all": "yes"})

    error = refused(complete, 400, "EntityTooSmall")
    assert (error["PartNumber"], error["MinSizeAllowed"]) == ("2", str(PART))
    bucket.upload_part("a", upload, 2, b"a" * PART)
    complete()
    assert bucket.get_object("a").read() == b"a" * PART + b"b" * 10


def test_parts_that_are_copied(bucket: oss2.Bucket) -> None:
    content = os.urandom(3 * PART)
    bucket.put_object(NAME, content)
    upload = bucket.init_multipart_upload("a").upload_id

    def copy(number: int, span: tuple[int | None, int | None], headers: Any = None) -> PartInfo:
        done = bucket.upload_part_copy(bucket.bucket_name, NAME, span, "a", upload, number, headers=headers)
        return PartInfo(number, done.etag)

    refused(lambda: copy(1, (0, 3 * PART)), 416, "InvalidRange")
    refused(lambda: copy(1, (0, 1), {"x-oss-copy-source-if-match": "other"}), 412, "PreconditionFailed")
    parts = [copy(1, (PART, 2 * PART - 1)), copy(2, (None, None))]
    done = bucket.complete_multipart_upload("a", upload, parts)
    got = bucket.get_object("a")
    assert got.read() == content[PART : 2 * PART] + content and got.client_crc == done.crc


def test_resumable_transfers(bucket: oss2.Bucket, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(3 * PART + 7))
    state = tmp_path / "state"
    kept: dict[str, Any] = {
        "store": oss2.ResumableStore(root=str(state)),
        "multipart_threshold": PART,
        "part_size": PART,
        "num_threads": 3,
    }
    oss2.resumable_upload(bucket, NAME, str(source), **kept)
    assert bucket.head_object(NAME).object_type == "Multipart"
    loading = {**kept, "store": oss2.ResumableDownloadStore(root=str(state)), "multiget_threshold": PART}
    del loading["multipart_threshold"]
    oss2.resumable_download(bucket, NAME, str(target), **loading)
    assert target.read_bytes() == source.read_bytes()


def test_an_interrupted_upload_goes_on(bucket: oss2.Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3 * PART))
    sent: list[int] = []
    whole = oss2.Bucket.upload_part

    def part(self: oss2.Bucket, key: str, upload: str, number: int, *rest: Any, **named: Any) -> Any:
        if number == 3 and len(sent) < 3:
            sent.append(-1)
            raise ConnectionError
        sent.append(number)
        return whole(self, key, upload, number, *rest, **named)

    monkeypatch.setattr(oss2.Bucket, "upload_part", part)
    kept: dict[str, Any] = {
        "store": oss2.ResumableStore(root=str(tmp_path / "state")),
        "multipart_threshold": PART,
        "part_size": PART,
        "num_threads": 1,
    }
    with pytest.raises(ConnectionError):
        oss2.resumable_upload(bucket, NAME, str(source), **kept)
    oss2.resumable_upload(bucket, NAME, str(source), **kept)
    assert sent == [1, 2, -1, 3]
    assert bucket.get_object(NAME).read() == source.read_bytes()


def test_buckets(oss: Any, name: str, bucket: oss2.Bucket) -> None:
    service = oss2.Service(bucket.auth, oss.url, region="cn-local")
    new = oss.bucket(f"{name}-new", bucket.auth)
    new.create_bucket("public-read", BucketCreateConfig("IA"))
    new.create_bucket()
    assert {name, f"{name}-new"} <= {found.name for found in oss2.BucketIterator(service)}
    assert [found.name for found in oss2.BucketIterator(service, prefix=f"{name}-")] == [f"{name}-new"]
    page = service.list_buckets(max_keys=1)
    assert len(page.buckets) == 1 and page.is_truncated and page.next_marker == page.buckets[0].name
    info = new.get_bucket_info()
    assert (info.name, info.location, info.storage_class, info.acl.grant) == (
        f"{name}-new",
        "oss-cn-local",
        "IA",
        "public-read",
    )
    assert new.get_bucket_location().location == "oss-cn-local"
    new.put_object("a", b"12345")
    new.init_multipart_upload("b")
    stat = new.get_bucket_stat()
    assert (stat.storage_size_in_bytes, stat.object_count, stat.multi_part_upload_count) == (5, 1, 1)
    refused(new.delete_bucket, 409, "BucketNotEmpty")
    new.delete_object("a")
    refused(new.delete_bucket, 409, "BucketNotEmpty")
    for upload in oss2.MultipartUploadIterator(new):
        new.abort_multipart_upload(upload.key, upload.upload_id)
    new.delete_bucket()
    with pytest.raises(NoSuchBucket):
        new.get_bucket_info()


def test_acls_and_lifecycles_are_kept(bucket: oss2.Bucket) -> None:
    assert bucket.get_bucket_acl().acl == "private"
    bucket.put_bucket_acl("public-read")
    assert bucket.get_bucket_acl().acl == "public-read"
    bucket.put_object("a", b"", headers={"x-oss-object-acl": "public-read-write"})
    assert bucket.get_object_acl("a").acl == "public-read-write"
    bucket.put_object_acl("a", "default")
    assert bucket.get_object_acl("a").acl == "default"
    refused(lambda: bucket.put_object_acl("a", "everybody"), 400, "InvalidArgument")
    refused(bucket.get_bucket_lifecycle, 404, "NoSuchLifecycle")
    rule = LifecycleRule("rule", "logs/", status=LifecycleRule.ENABLED, expiration=LifecycleExpiration(days=7))
    bucket.put_bucket_lifecycle(BucketLifecycle([rule]))
    kept = bucket.get_bucket_lifecycle().rules[0]
    assert (kept.id, kept.prefix, kept.expiration.days) == ("rule", "logs/", 7)
    bucket.delete_bucket_lifecycle()
    refused(bucket.get_bucket_lifecycle, 404, "NoSuchLifecycle")


def test_tags(bucket: oss2.Bucket) -> None:
    bucket.put_object("a", b"")
    rule = TaggingRule()
    rule.add("k 1", "v&1")
    bucket.put_object_tagging("a", Tagging(rule))
    assert bucket.get_object_tagging("a").tag_set.tagging_rule == {"k 1": "v&1"}
    assert bucket.head_object("a").headers["x-oss-tagging-count"] == "1"
    bucket.delete_object_tagging("a")
    assert bucket.get_object_tagging("a").tag_set.tagging_rule == {}


@pytest.mark.parametrize(
    "call", ["get_bucket_cors", "get_bucket_versioning", "get_bucket_policy", "get_bucket_website"]
)
def test_what_is_not_there_says_so(bucket: oss2.Bucket, call: str) -> None:
    refused(getattr(bucket, call), 501, "NotImplemented")
    refused(lambda: bucket.get_object("a", params={"versionId": "1"}), 501, "NotImplemented")
    versions = BatchDeleteObjectVersionList([BatchDeleteObjectVersion("a", "1")])
    refused(lambda: bucket.delete_object_versions(versions), 501, "NotImplemented")


@pytest.mark.parametrize("header", ["x-oss-server-side-encryption", "x-oss-callback"])
def test_what_a_header_asks_for_is_done_or_refused(bucket: oss2.Bucket, header: str) -> None:
    for call in (
        lambda: bucket.put_object("a", b"x", headers={header: "AES256"}),
        lambda: bucket.append_object("a", 0, b"x", headers={header: "AES256"}),
        lambda: bucket.init_multipart_upload("a", headers={header: "AES256"}),
    ):
        assert refused(call, 501, "NotImplemented")["ArgumentName"] == header
    assert not bucket.object_exists("a")


def test_a_version_is_not_copied(bucket: oss2.Bucket) -> None:
    bucket.put_object("a", b"x")
    refused(lambda: bucket.copy_object(bucket.bucket_name, "a", "b", params={"versionId": "v"}), 501, "NotImplemented")


def test_under_a_name_of_its_own(oss: Any, name: str) -> None:
    """Virtual hosts: the SDK asks the emulator as its proxy for the host that would be OSS's."""
    session = oss2.Session()
    session.session.proxies = {"http": oss.url}
    session.session.trust_env = False
    for auth in (oss2.Auth("LOCALTEST", "a secret for tests"), oss2.AuthV4("LOCALTEST", "a secret for tests")):
        endpoint = "http://oss-cn-local.aliyuncs.com"
        bucket = oss2.Bucket(auth, endpoint, name, session=session, region="cn-local")
        bucket.put_object(NAME, b"x")
        assert bucket.get_object(NAME).read() == b"x"
        assert [found.key for found in oss2.ObjectIterator(bucket)] == [NAME]


def test_over_tls(oss: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(oss.ca))
    auth = oss2.AuthV4("LOCALTEST", "a secret for tests")
    bucket = oss2.Bucket(auth, f"https://{oss.tls_endpoint}", name, region="cn-local")
    content = os.urandom(3_000_000)
    bucket.put_object(NAME, content)
    assert bucket.get_object(NAME).read() == content
