"""Which operation a request asks for."""

from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.wire.calls import Operation
from wavelift.localcloud.oss.wire.operations import buckets, listings, objects, uploads
from wavelift.localcloud.oss.wire.request import Request
from wavelift.localcloud.oss.wire.subresources import REFUSED, REFUSED_HEADERS

Table = dict[str, tuple[tuple[str, Operation], ...]]

# By method: the parameter that tells an operation, and the operation; the first that fits counts, "" always fits.
SERVICE: Table = {"GET": (("", buckets.LIST_BUCKETS),)}
BUCKET: Table = {
    "GET": (
        ("acl", buckets.GET_BUCKET_ACL),
        ("bucketInfo", buckets.BUCKET_INFO),
        ("location", buckets.BUCKET_LOCATION),
        ("lifecycle", buckets.GET_LIFECYCLE),
        ("stat", buckets.BUCKET_STAT),
        ("uploads", listings.LIST_UPLOADS),
        ("list-type=2", listings.LIST_OBJECTS_V2),
        ("", listings.LIST_OBJECTS),
    ),
    "HEAD": (("", buckets.HEAD_BUCKET),),
    "PUT": (
        ("acl", buckets.PUT_BUCKET_ACL),
        ("lifecycle", buckets.PUT_LIFECYCLE),
        ("", buckets.PUT_BUCKET),
    ),
    "POST": (("delete", objects.DELETE_OBJECTS),),
    "DELETE": (("lifecycle", buckets.DELETE_LIFECYCLE), ("", buckets.DELETE_BUCKET)),
}
OBJECT: Table = {
    "GET": (
        ("acl", objects.GET_OBJECT_ACL),
        ("tagging", objects.GET_TAGGING),
        ("uploadId", listings.LIST_PARTS),
        ("", objects.GET_OBJECT),
    ),
    "HEAD": (("objectMeta", objects.OBJECT_META), ("", objects.HEAD_OBJECT)),
    "PUT": (
        ("acl", objects.PUT_OBJECT_ACL),
        ("tagging", objects.PUT_TAGGING),
        ("uploadId", uploads.UPLOAD_PART),
        ("", objects.PUT_OBJECT),
    ),
    "POST": (
        ("append", objects.APPEND_OBJECT),
        ("uploads", uploads.INITIATE),
        ("uploadId", uploads.COMPLETE),
    ),
    "DELETE": (
        ("tagging", objects.DELETE_TAGGING),
        ("uploadId", uploads.ABORT),
        ("", objects.DELETE_OBJECT),
    ),
}
COPIES = {objects.PUT_OBJECT.name: objects.COPY_OBJECT, uploads.UPLOAD_PART.name: uploads.UPLOAD_PART_COPY}


def route(request: Request) -> Operation:
    table = OBJECT if request.key else BUCKET if request.bucket else SERVICE
    names = [name for name, _ in request.query]
    refused = next((name for name in names if name in REFUSED), None)
    refused = refused or next((name for name in (*request.headers, *names) if name.startswith(REFUSED_HEADERS)), None)
    if refused is not None:
        raise OssError("NotImplemented", ArgumentName=refused)
    given = {""} | {name for name, _ in request.query} | {f"{name}={value}" for name, value in request.query}
    found = next((operation for mark, operation in table.get(request.method, ()) if mark in given), None)
    if found is None:
        raise OssError("MethodNotAllowed", Method=request.method)
    return COPIES.get(found.name, found) if request.special("copy-source") else found
