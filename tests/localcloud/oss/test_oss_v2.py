"""Whole life cycles through the newer Python SDK: signature 4, by path, checks of CRC-64 on."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import alibabacloud_oss_v2 as oss_v2
import httpx
import pytest
from alibabacloud_oss_v2.exceptions import OperationError, ServiceError

NAME = "folder/a b+c é~'(*)&%.bin"
PART = 100 * 1024


@pytest.fixture(params=["v4", "v1"])
def client(oss: Any, request: pytest.FixtureRequest) -> oss_v2.Client:
    settings = oss_v2.config.load_default()
    settings.credentials_provider = oss_v2.credentials.StaticCredentialsProvider("LOCALTEST", "a secret for tests")
    settings.region = "cn-local"
    settings.endpoint = oss.url
    settings.use_path_style = True
    settings.signature_version = request.param
    return oss_v2.Client(settings)


def refused(call: Callable[[], Any], status: int, code: str) -> ServiceError:
    with pytest.raises(OperationError) as caught:
        call()
    error = caught.value.unwrap()
    assert isinstance(error, ServiceError)
    assert (error.status_code, error.code) == (status, code)
    return error


def test_an_object_from_put_to_delete(client: oss_v2.Client, name: str) -> None:
    content = os.urandom(300_000)
    where = {"bucket": name, "key": NAME}
    put = client.put_object(oss_v2.PutObjectRequest(**where, body=content, metadata={"owner": "me"}))
    got = client.get_object(oss_v2.GetObjectRequest(**where))
    assert got.body.read() == content and got.hash_crc64 == put.hash_crc64
    assert (got.etag, got.metadata["owner"]) == (put.etag, "me")
    span = oss_v2.GetObjectRequest(**where, range_header="bytes=10-400000", range_behavior="standard")
    assert client.get_object(span).body.read() == content[10:]
    assert client.head_object(oss_v2.HeadObjectRequest(**where)).content_length == 300_000
    assert client.get_object_meta(oss_v2.GetObjectMetaRequest(**where)).content_length == 300_000
    copy = oss_v2.CopyObjectRequest(bucket=name, key="copy", source_bucket=name, source_key=NAME)
    assert client.copy_object(copy).etag == put.etag
    again = oss_v2.PutObjectRequest(**where, body=b"x", forbid_overwrite=True)
    refused(lambda: client.put_object(again), 409, "FileAlreadyExists")
    client.delete_object(oss_v2.DeleteObjectRequest(**where))
    error = refused(lambda: client.get_object(oss_v2.GetObjectRequest(**where)), 404, "NoSuchKey")
    assert error.request_id
    refused(lambda: client.head_object(oss_v2.HeadObjectRequest(**where)), 404, "NoSuchKey")
    assert not client.is_object_exist(name, NAME)


def test_buckets(client: oss_v2.Client, name: str) -> None:
    new = f"{name}-new"
    client.put_bucket(oss_v2.PutBucketRequest(bucket=new, acl="public-read"))
    assert new in {found.name for found in client.list_buckets(oss_v2.ListBucketsRequest()).buckets}
    assert client.get_bucket_info(oss_v2.GetBucketInfoRequest(bucket=new)).bucket_info.acl == "public-read"
    assert client.get_bucket_acl(oss_v2.GetBucketAclRequest(bucket=new)).acl == "public-read"
    assert client.get_bucket_location(oss_v2.GetBucketLocationRequest(bucket=new)).location == "oss-cn-local"
    assert client.get_bucket_stat(oss_v2.GetBucketStatRequest(bucket=new)).object_count == 0
    client.delete_bucket(oss_v2.DeleteBucketRequest(bucket=new))
    assert not client.is_bucket_exist(new)


def test_listing_and_deleting_many(client: oss_v2.Client, name: str) -> None:
    names = [f"{folder}/{number}" for folder in ("a", "é\n") for number in range(5)]
    for each in names:
        client.put_object(oss_v2.PutObjectRequest(bucket=name, key=each))
    listing = client.list_objects_v2_paginator().iter_page(oss_v2.ListObjectsV2Request(bucket=name, max_keys=3))
    assert [found.key for page in listing for found in page.contents] == names
    listing = client.list_objects_paginator().iter_page(
        oss_v2.ListObjectsRequest(bucket=name, delimiter="/", max_keys=1)
    )
    assert [found.prefix for page in listing for found in page.common_prefixes] == ["a/", "é\n/"]
    objects = [oss_v2.DeleteObject(key=each) for each in names]
    done = client.delete_multiple_objects(oss_v2.DeleteMultipleObjectsRequest(bucket=name, objects=objects))
    assert [found.key for found in done.deleted_objects] == names
    quiet = oss_v2.DeleteMultipleObjectsRequest(bucket=name, objects=objects, quiet=True)
    assert not client.delete_multiple_objects(quiet).deleted_objects


def test_append(client: oss_v2.Client, name: str) -> None:
    with client.append_file(bucket=name, key="log") as file:
        file.write(b"one")
        file.write(b"two")
    with client.append_file(bucket=name, key="log") as file:
        file.write(b"three")
    assert client.get_object(oss_v2.GetObjectRequest(bucket=name, key="log")).body.read() == b"onetwothree"
    late = oss_v2.AppendObjectRequest(bucket=name, key="log", position=3, body=b"x")
    refused(lambda: client.append_object(late), 409, "PositionNotEqualToLength")


def test_uploader_and_downloader(client: oss_v2.Client, name: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(5 * PART + 9))
    upload = oss_v2.PutObjectRequest(bucket=name, key=NAME)
    done = client.uploader(part_size=PART, parallel_num=3).upload_file(upload, str(source))
    assert done.etag.strip('"').endswith("-6")
    download = oss_v2.GetObjectRequest(bucket=name, key=NAME)
    client.downloader(part_size=PART, parallel_num=3).download_file(download, str(target))
    assert target.read_bytes() == source.read_bytes()


def test_a_url_to_share(client: oss_v2.Client, name: str) -> None:
    client.put_object(oss_v2.PutObjectRequest(bucket=name, key=NAME, body=b"x"))
    signed = client.presign(oss_v2.GetObjectRequest(bucket=name, key=NAME))
    assert httpx.request(signed.method, signed.url, headers=signed.signed_headers, trust_env=False).content == b"x"
