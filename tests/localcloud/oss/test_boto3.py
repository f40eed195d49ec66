"""S3 mode: boto3 and smart-open."""

import base64
import hashlib
import io
import os
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import smart_open
from botocore.exceptions import ClientError

NAME = "folder/a b+c é~'(*)&%.bin"
PART = 100 * 1024


def refused(call: Callable[[], Any], status: int, code: str) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        call()
    response = caught.value.response
    assert (response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]) == (status, code)
    error: dict[str, Any] = response["Error"]
    return error


@pytest.fixture(params=["s3v4", "s3"], ids=["V4", "V2"])
def s3(oss: Any, request: pytest.FixtureRequest) -> Any:
    return oss.s3(config={"signature_version": request.param})


def test_an_object_from_put_to_delete(s3: Any, name: str) -> None:
    content = os.urandom(300_000)
    put = s3.put_object(
        Bucket=name,
        Key=NAME,
        Body=content,
        Metadata={"Owner": "somebody"},
        ContentType="a/b",
        StorageClass="STANDARD_IA",
    )
    assert put["ETag"] == f'"{hashlib.md5(content).hexdigest().upper()}"'
    got = s3.get_object(Bucket=name, Key=NAME)
    assert got["Body"].read() == content
    assert (got["Metadata"], got["ContentType"], got["ETag"]) == ({"owner": "somebody"}, "a/b", put["ETag"])
    assert s3.get_object(Bucket=name, Key=NAME, Range="bytes=10-19")["Body"].read() == content[10:20]
    head = s3.head_object(Bucket=name, Key=NAME)
    assert head["ContentLength"] == 300_000
    assert head["ResponseMetadata"]["HTTPHeaders"]["x-oss-hash-crc64ecma"]
    s3.copy_object(Bucket=name, Key="copy", CopySource={"Bucket": name, "Key": NAME})
    assert s3.head_object(Bucket=name, Key="copy")["Metadata"] == {"owner": "somebody"}
    s3.delete_object(Bucket=name, Key=NAME)
    refused(lambda: s3.get_object(Bucket=name, Key=NAME), 404, "NoSuchKey")
    refused(lambda: s3.head_object(Bucket=name, Key=NAME), 404, "404")
    refused(lambda: s3.get_object(Bucket="not-there", Key=NAME), 404, "NoSuchBucket")


def test_buckets(s3: Any, name: str) -> None:
    s3.create_bucket(Bucket=f"{name}-new", CreateBucketConfiguration={"LocationConstraint": "oss-cn-local"})
    s3.head_bucket(Bucket=f"{name}-new")
    assert {name, f"{name}-new"} <= {found["Name"] for found in s3.list_buckets()["Buckets"]}
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] == "oss-cn-local"
    s3.put_bucket_acl(Bucket=name, ACL="public-read")
    s3.delete_bucket(Bucket=f"{name}-new")
    refused(lambda: s3.head_bucket(Bucket=f"{name}-new"), 404, "404")


def test_listing(s3: Any, name: str) -> None:
    names = [f"{folder}/{number}" for folder in ("a", "b b", "é\n") for number in range(5)]
    for each in names:
        s3.put_object(Bucket=name, Key=each, Body=b"")
    for operation in ("list_objects", "list_objects_v2"):
        pages = s3.get_paginator(operation).paginate(Bucket=name, PaginationConfig={"PageSize": 4})
        assert [found["Key"] for page in pages for found in page["Contents"]] == sorted(names)
        pages = s3.get_paginator(operation).paginate(Bucket=name, Delimiter="/", PaginationConfig={"PageSize": 1})
        assert [found["Prefix"] for page in pages for found in page["CommonPrefixes"]] == ["a/", "b b/", "é\n/"]
    assert s3.list_objects_v2(Bucket=name, StartAfter="b b/3", MaxKeys=1)["Contents"][0]["Key"] == "b b/4"
    assert s3.list_objects_v2(Bucket=name)["KeyCount"] == len(names)


def test_multipart(s3: Any, name: str) -> None:
    content = os.urandom(2 * PART + 3)
    where = {"Bucket": name, "Key": NAME}
    upload = s3.create_multipart_upload(**where, Metadata={"a": "b"})["UploadId"]
    assert s3.list_multipart_uploads(Bucket=name)["Uploads"][0]["Key"] == NAME
    s3.put_object(Bucket=name, Key="source", Body=content)
    source = {"Bucket": name, "Key": "source"}
    part = s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=content[:PART])
    span = f"bytes={PART}-{2 * PART + 2}"
    copied = s3.upload_part_copy(**where, UploadId=upload, PartNumber=2, CopySource=source, CopySourceRange=span)
    parts = [
        {"PartNumber": 1, "ETag": part["ETag"]},
        {"PartNumber": 2, "ETag": copied["CopyPartResult"]["ETag"]},
    ]
    listed = s3.list_parts(**where, UploadId=upload)["Parts"]
    assert [(each["PartNumber"], each["ETag"]) for each in listed] == [
        (each["PartNumber"], each["ETag"]) for each in parts
    ]

    def complete(chosen: list[dict[str, Any]]) -> Any:
        return s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": chosen})

    refused(lambda: complete(parts[::-1]), 400, "InvalidPartOrder")
    refused(lambda: complete([{"PartNumber": 1, "ETag": "other"}]), 400, "InvalidPart")
    done = complete(parts)
    got = s3.get_object(**where)
    assert got["Body"].read() == content and got["ETag"] == done["ETag"] and got["Metadata"] == {"a": "b"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    s3.abort_multipart_upload(**where, UploadId=upload)
    refused(lambda: s3.list_parts(**where, UploadId=upload), 404, "NoSuchUpload")


def test_transfer_manager(s3: Any, name: str) -> None:
    content = os.urandom(9 << 20)
    s3.upload_fileobj(io.BytesIO(content), name, NAME)
    target = io.BytesIO()
    s3.download_fileobj(name, NAME, target)
    assert target.getvalue() == content


def test_deleting_many_needs_the_md5_that_boto3_does_not_send(s3: Any, name: str) -> None:
    def delete() -> Any:
        return s3.delete_objects(Bucket=name, Delete={"Objects": [{"Key": NAME}, {"Key": "b"}]})

    s3.put_object(Bucket=name, Key=NAME, Body=b"")
    assert refused(delete, 400, "MissingArgument")["ArgumentName"] == "Content-MD5"

    def add_md5(request: Any, **_: Any) -> None:
        request.headers["Content-MD5"] = base64.b64encode(hashlib.md5(request.body).digest()).decode()

    s3.meta.events.register("before-sign.s3.DeleteObjects", add_md5)
    assert [each["Key"] for each in delete()["Deleted"]] == [NAME, "b"]
    assert s3.list_objects_v2(Bucket=name)["KeyCount"] == 0


def test_a_url_to_share(s3: Any, name: str) -> None:
    url = s3.generate_presigned_url("put_object", {"Bucket": name, "Key": NAME})
    assert httpx.put(url, content=b"by url", trust_env=False).status_code == 200
    url = s3.generate_presigned_url("get_object", {"Bucket": name, "Key": NAME, "ResponseContentType": "text/x"})
    response = httpx.get(url, trust_env=False)
    assert (response.content, response.headers["content-type"]) == (b"by url", "text/x")


def test_a_signed_body_that_was_altered(oss: Any, name: str) -> None:
    """Over plain HTTP boto3 signs the SHA-256 of what it sends."""
    s3 = oss.s3()

    def alter(request: Any, **_: Any) -> None:
        assert len(request.headers["X-Amz-Content-SHA256"]) == 64
        request.body = b"altered"

    s3.meta.events.register("before-send.s3.PutObject", alter)
    refused(lambda: s3.put_object(Bucket=name, Key="a", Body=b"content"), 400, "XAmzContentSHA256Mismatch")
    s3.meta.events.unregister("before-send.s3.PutObject", alter)
    refused(lambda: s3.get_object(Bucket=name, Key="a"), 404, "NoSuchKey")


def test_chunked_bodies_are_refused(oss: Any, name: str) -> None:
    """boto3 as it is, over TLS: it puts a checksum behind the body, which OSS does not take."""
    usual = {"request_checksum_calculation": "when_supported", "response_checksum_validation": "when_supported"}
    url = {"endpoint_url": f"https://{oss.tls_endpoint}", "verify": str(oss.ca)}
    s3 = oss.s3(config=usual, **url)
    error = refused(lambda: s3.put_object(Bucket=name, Key="a", Body=b"x"), 400, "InvalidArgument")
    assert error["Message"].startswith("aws-chunked encoding is not supported")
    assert (error["ArgumentName"], error["ArgumentValue"]) == ("Content-Encoding", "aws-chunked")
    s3 = oss.s3(**url)
    s3.put_object(Bucket=name, Key="a", Body=b"x")
    assert s3.get_object(Bucket=name, Key="a")["Body"].read() == b"x"


def test_under_a_name_of_its_own(oss: Any, name: str) -> None:
    """Virtual hosts, the emulator being the proxy; and what OSS says to whoever uses paths there."""
    endpoint = {"endpoint_url": "http://oss-cn-local.aliyuncs.com"}
    proxies = {"http": oss.url}
    for version in ("s3v4", "s3"):
        virtual = {"s3": {"addressing_style": "virtual"}, "proxies": proxies, "signature_version": version}
        s3 = oss.s3(config=virtual, **endpoint)
        s3.put_object(Bucket=name, Key=NAME, Body=b"x")
        assert s3.get_object(Bucket=name, Key=NAME)["Body"].read() == b"x"
        assert s3.list_objects_v2(Bucket=name)["Contents"][0]["Key"] == NAME
    s3 = oss.s3(config={"s3": {"addressing_style": "path"}, "proxies": proxies}, **endpoint)
    refused(lambda: s3.get_object(Bucket=name, Key=NAME), 403, "SecondLevelDomainForbidden")


def test_a_url_with_a_name_in_another_script(s3: Any, name: str) -> None:
    s3.put_object(Bucket=name, Key=NAME, Body=b"x")
    wanted = {"Bucket": name, "Key": NAME, "ResponseContentDisposition": "attachment; filename=\u62a5\u544a é.pdf"}
    response = httpx.get(s3.generate_presigned_url("get_object", wanted), trust_env=False)
    assert (response.status_code, response.content) == (200, b"x"), response.text
    said = dict(response.headers.raw)[b"content-disposition"]
    assert said.decode() == wanted["ResponseContentDisposition"]


def test_temporary_keys(oss: Any, name: str) -> None:
    everything = {"Effect": "Allow", "Action": "oss:*", "Resource": f"acs:oss:*:*:{name}/mine/*"}
    s3 = oss.s3(oss.accounts.issue(60, {"Version": "1", "Statement": [everything]}))
    s3.put_object(Bucket=name, Key="mine/a", Body=b"x")
    refused(lambda: s3.put_object(Bucket=name, Key="theirs/a", Body=b"x"), 403, "AccessDenied")


@pytest.mark.parametrize("size", [0, 1000, 12 << 20])
def test_smart_open(s3: Any, name: str, size: int) -> None:
    content, parameters = os.urandom(size), {"client": s3, "min_part_size": 5 << 20}
    with smart_open.open(f"s3://{name}/a", "wb", transport_params=parameters) as target:
        target.write(content)
    with smart_open.open(f"s3://{name}/a", "rb", transport_params={"client": s3}) as source:
        assert source.read() == content
        if size:
            source.seek(size - 10)
            assert source.read() == content[-10:]
            source.seek(5)
            assert source.read(20) == content[5:25]


def test_smart_open_gives_up_cleanly(s3: Any, name: str) -> None:
    with (
        pytest.raises(RuntimeError),
        smart_open.open(f"s3://{name}/a", "wb", transport_params={"client": s3}) as target,
    ):
        target.write(b"x" * (1 << 20))
        raise RuntimeError
    assert s3.list_objects_v2(Bucket=name)["KeyCount"] == 0
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=name)
