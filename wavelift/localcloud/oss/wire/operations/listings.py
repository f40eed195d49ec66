"""Pages of objects, uploads and parts."""

import base64
import binascii
from collections.abc import Iterable
from typing import Any

from wavelift.localcloud.oss.errors import invalid_argument
from wavelift.localcloud.oss.model.uploads import MOST_PARTS
from wavelift.localcloud.oss.model.values import Object
from wavelift.localcloud.oss.wire import xml
from wavelift.localcloud.oss.wire.calls import Call, Operation, Reply, xml_reply
from wavelift.localcloud.oss.wire.headers import encode_name
from wavelift.localcloud.oss.wire.operations.buckets import OWNER
from wavelift.localcloud.oss.wire.request import Request
from wavelift.localcloud.oss.wire.times import iso

MOST = 1000
USUAL = 100
S3_USUAL = 1000


class _Encoder:
    """Names as the request wants them: as they are, or encoded so that any name fits into XML."""

    def __init__(self, request: Request) -> None:
        kind = request.parameter("encoding-type")
        if kind not in {None, "", "url"}:
            raise invalid_argument("encoding-type", str(kind))
        self._encodes = kind == "url"

    def __call__(self, name: str) -> str:
        return encode_name(name, self._encodes)

    def note(self) -> list[tuple[str, Any]]:
        return [("EncodingType", "url")] if self._encodes else []


def list_objects(call: Call) -> Reply:
    request, encode = call.request, _Encoder(call.request)
    prefix, delimiter, marker = request.text("prefix"), request.text("delimiter"), request.text("marker")
    limit = request.number("max-keys", S3_USUAL if request.s3 else USUAL, 1, MOST)
    page = call.store.objects.list(call.bucket, prefix, delimiter, marker, limit)
    body = [
        ("Name", call.bucket),
        ("Prefix", encode(prefix)),
        ("Marker", encode(marker)),
        ("MaxKeys", limit),
        ("Delimiter", encode(delimiter)),
        *encode.note(),
        ("IsTruncated", page.truncated),
        *([("NextMarker", encode(page.last))] if page.truncated else []),
        *_contents(page.items, encode, owner=True),
        *_prefixes(page.prefixes, encode),
    ]
    return xml_reply(xml.document("ListBucketResult", body))


def list_objects_v2(call: Call) -> Reply:
    request, encode = call.request, _Encoder(call.request)
    prefix, delimiter = request.text("prefix"), request.text("delimiter")
    start, token = request.text("start-after"), request.parameter("continuation-token")
    limit = request.number("max-keys", S3_USUAL if request.s3 else USUAL, 1, MOST)
    after = _name_of(token) if token else start
    page = call.store.objects.list(call.bucket, prefix, delimiter, after, limit)
    body = [
        ("Name", call.bucket),
        ("Prefix", encode(prefix)),
        ("StartAfter", encode(start)),
        ("MaxKeys", limit),
        ("Delimiter", encode(delimiter)),
        *encode.note(),
        *([("ContinuationToken", token)] if token else []),
        ("IsTruncated", page.truncated),
        *([("NextContinuationToken", _token_of(page.last))] if page.truncated else []),
        ("KeyCount", len(page.items) + len(page.prefixes)),
        *_contents(page.items, encode, owner=request.text("fetch-owner") == "true"),
        *_prefixes(page.prefixes, encode),
    ]
    return xml_reply(xml.document("ListBucketResult", body))


def list_uploads(call: Call) -> Reply:
    request, encode = call.request, _Encoder(call.request)
    prefix, delimiter = request.text("prefix"), request.text("delimiter")
    key, identifier = request.text("key-marker"), request.text("upload-id-marker")
    limit = request.number("max-uploads", MOST, 1, MOST)
    # The marker of ids counts only beside one of keys.
    page = call.store.uploads.list(call.bucket, prefix, delimiter, key, identifier if key else "", limit)
    last = page.items[-1] if page.items and page.items[-1].key == page.last else None
    body = [
        ("Bucket", call.bucket),
        ("KeyMarker", encode(key)),
        ("UploadIdMarker", identifier),
        ("NextKeyMarker", encode(page.last)),
        ("NextUploadIdMarker", last.id if last else ""),
        ("Delimiter", encode(delimiter)),
        ("Prefix", encode(prefix)),
        *encode.note(),
        ("MaxUploads", limit),
        ("IsTruncated", page.truncated),
        *(
            (
                "Upload",
                [
                    ("Key", encode(upload.key)),
                    ("UploadId", upload.id),
                    ("StorageClass", upload.meta.storage_class),
                    ("Initiated", iso(upload.initiated)),
                ],
            )
            for upload in page.items
        ),
        *_prefixes(page.prefixes, encode),
    ]
    return xml_reply(xml.document("ListMultipartUploadsResult", body))


def list_parts(call: Call) -> Reply:
    request, encode = call.request, _Encoder(call.request)
    identifier = request.text("uploadId")
    marker = request.number("part-number-marker", 0, 0, MOST_PARTS)
    limit = request.number("max-parts", MOST, 1, MOST)
    page = call.store.uploads.parts(call.bucket, call.key, identifier, marker, limit)
    body = [
        ("Bucket", call.bucket),
        ("Key", encode(call.key)),
        ("UploadId", identifier),
        ("PartNumberMarker", marker),
        ("NextPartNumberMarker", page.items[-1].number if page.items else 0),
        *encode.note(),
        ("MaxParts", limit),
        ("IsTruncated", page.truncated),
        *(
            (
                "Part",
                [
                    ("PartNumber", part.number),
                    ("LastModified", iso(part.modified)),
                    ("ETag", f'"{part.etag}"'),
                    ("HashCrc64ecma", str(part.crc64)),
                    ("Size", part.size),
                ],
            )
            for part in page.items
        ),
    ]
    return xml_reply(xml.document("ListPartsResult", body))


def _contents(objects: Iterable[Object], encode: _Encoder, owner: bool) -> Iterable[tuple[str, Any]]:
    for found in objects:
        fields: list[tuple[str, Any]] = [
            ("Key", encode(found.key)),
            ("LastModified", iso(found.modified)),
            ("ETag", f'"{found.etag}"'),
            ("Type", found.kind.value),
            ("Size", found.size),
            ("StorageClass", found.meta.storage_class),
        ]
        yield "Contents", [*fields, ("Owner", OWNER)] if owner else fields


def _prefixes(prefixes: Iterable[str], encode: _Encoder) -> Iterable[tuple[str, Any]]:
    return (("CommonPrefixes", [("Prefix", encode(prefix))]) for prefix in prefixes)


def _token_of(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _name_of(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token).decode()
    except (binascii.Error, ValueError):
        raise invalid_argument("continuation-token", token) from None


LIST_OBJECTS = Operation("ListObjects", "ListObjects", list_objects)
LIST_OBJECTS_V2 = Operation("ListObjectsV2", "ListObjects", list_objects_v2)
LIST_UPLOADS = Operation("ListMultipartUploads", "ListMultipartUploads", list_uploads)
LIST_PARTS = Operation("ListParts", "ListParts", list_parts)
