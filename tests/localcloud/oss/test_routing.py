import pytest

from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.wire.request import Request
from wavelift.localcloud.oss.wire.routing import BUCKET, COPIES, OBJECT, SERVICE, route
from wavelift.localcloud.oss.wire.subresources import HANDLED, IGNORED, REFUSED


def operation(line: str, **headers: str) -> str:
    method, _, target = line.partition(" ")
    path, _, query = target.partition("?")
    return route(Request.parse(method, path, query, {n.replace("_", "-"): v for n, v in headers.items()})).name


@pytest.mark.parametrize(
    "line, expected",
    [
        ("GET /", "ListBuckets"),
        ("GET /b", "ListObjects"),
        ("GET /b/?list-type=2&prefix=acl", "ListObjectsV2"),
        ("GET /b/?prefix=x&uploads", "ListMultipartUploads"),
        ("HEAD /b", "HeadBucket"),
        ("PUT /b/?acl", "PutBucketAcl"),
        ("POST /b/?delete", "DeleteMultipleObjects"),
        ("GET /b/acl", "GetObject"),
        ("GET /b/k?acl", "GetObjectACL"),
        ("HEAD /b/k?objectMeta", "GetObjectMeta"),
        ("PUT /b/k?partNumber=1&uploadId=x", "UploadPart"),
        ("POST /b/k?append&position=0", "AppendObject"),
        ("POST /b/k?uploads", "InitiateMultipartUpload"),
        ("POST /b/k?uploadId=x", "CompleteMultipartUpload"),
        ("DELETE /b/k?uploadId=x", "AbortMultipartUpload"),
        ("DELETE /b/k", "DeleteObject"),
    ],
)
def test_what_is_asked_for(line: str, expected: str) -> None:
    assert operation(line) == expected


def test_copies() -> None:
    assert operation("PUT /b/k", x_oss_copy_source="/a/k") == "CopyObject"
    assert operation("PUT /b/k?uploadId=x&partNumber=1", x_oss_copy_source="/a/k") == "UploadPartCopy"
    assert operation("PUT /b/k", x_amz_copy_source="/a/k") == "PutObject"  # S3's name means nothing to OSS
    signed = "AWS4-HMAC-SHA256 x"
    assert operation("PUT /b/k", x_amz_copy_source="/a/k", authorization=signed) == "CopyObject"


@pytest.mark.parametrize(
    "line", ["GET /b/?versioning", "PUT /b/k?symlink", "GET /b/k?x-oss-process=image", "POST /b/?cors"]
)
def test_what_is_not_there(line: str) -> None:
    with pytest.raises(OssError, match="NotImplemented"):
        operation(line)


@pytest.mark.parametrize(
    "headers",
    [
        {"x_oss_server_side_encryption": "AES256"},
        {"x_oss_server_side_data_encryption": "SM4"},
        {"x_oss_callback": "e30="},
        {"x_amz_server_side_encryption_customer_algorithm": "AES256"},
    ],
)
def test_what_headers_ask_for_is_not_there(headers: dict[str, str]) -> None:
    for line in ("PUT /b/k", "POST /b/k?uploads"):
        with pytest.raises(OssError, match="NotImplemented"):
            operation(line, **headers)
    with pytest.raises(OssError, match="NotImplemented"):
        operation("PUT /b/k?x-amz-server-side-encryption=AES256")


def test_every_operation_has_a_name_of_its_own() -> None:
    tables = (SERVICE, BUCKET, OBJECT)
    names = [operation.name for table in tables for routes in table.values() for _, operation in routes]
    names += [operation.name for operation in COPIES.values()]
    assert len(names) == len(set(names))
    assert not (HANDLED & REFUSED or HANDLED & IGNORED or REFUSED & IGNORED)
