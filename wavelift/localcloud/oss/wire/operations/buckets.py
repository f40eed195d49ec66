"""Operations on the service and on buckets."""

from collections.abc import Callable
from typing import Any

from wavelift.localcloud.accounts import ACCOUNT
from wavelift.localcloud.oss.errors import OssError, invalid_argument
from wavelift.localcloud.oss.model.values import Bucket
from wavelift.localcloud.oss.wire import xml
from wavelift.localcloud.oss.wire.calls import Call, Operation, Reply, xml_reply
from wavelift.localcloud.oss.wire.headers import BUCKET_ACLS, STORAGE_CLASSES, acl_of, storage_class_of
from wavelift.localcloud.oss.wire.times import iso

# There is one account.
OWNER: list[tuple[str, str]] = [("ID", ACCOUNT), ("DisplayName", ACCOUNT)]


def list_buckets(call: Call) -> Reply:
    request = call.request
    limit = request.number("max-keys", 100, 1, 1000)
    prefix, marker = request.text("prefix"), request.text("marker")
    found = call.store.buckets.all(prefix, marker, limit + 1)
    shown, truncated = found[:limit], len(found) > limit
    paging: list[tuple[str, Any]] = []
    if {"prefix", "marker", "max-keys"} & {name for name, _ in request.query}:
        paging = [("Prefix", prefix), ("Marker", marker), ("MaxKeys", limit), ("IsTruncated", truncated)]
        paging += [("NextMarker", shown[-1].name)] if truncated else []
    buckets = [("Bucket", _describe(call, bucket)) for bucket in shown]
    body = xml.document("ListAllMyBucketsResult", [*paging, ("Owner", OWNER), ("Buckets", buckets)])
    return xml_reply(body)


def put_bucket(call: Call) -> Reply:
    storage_class = storage_class_of(call.request)
    if call.document:
        configuration = xml.parse(call.document, "CreateBucketConfiguration")
        asked = configuration.findtext("StorageClass") or storage_class
        if asked.lower() not in STORAGE_CLASSES:
            raise invalid_argument("StorageClass", asked)
        storage_class = STORAGE_CLASSES[asked.lower()]
    call.store.buckets.put(call.bucket, acl_of(call.request, "acl", BUCKET_ACLS), storage_class)
    return Reply(200, {"Location": f"/{call.bucket}"})


def delete_bucket(call: Call) -> Reply:
    call.store.buckets.delete(call.bucket)
    return Reply(204)


def head_bucket(call: Call) -> Reply:
    call.store.buckets.get(call.bucket)
    return Reply(200, {"x-oss-bucket-region": call.region})


def bucket_info(call: Call) -> Reply:
    bucket = call.store.buckets.get(call.bucket)
    described = [
        *_describe(call, bucket),
        ("Owner", OWNER),
        ("AccessControlList", [("Grant", bucket.acl)]),
        ("DataRedundancyType", "LRS"),
        ("AccessMonitor", "Disabled"),
        ("TransferAcceleration", "Disabled"),
        ("CrossRegionReplication", "Disabled"),
        ("Comment", ""),
    ]
    return xml_reply(xml.document("BucketInfo", [("Bucket", described)]))


def bucket_location(call: Call) -> Reply:
    call.store.buckets.get(call.bucket)
    return xml_reply(xml.document("LocationConstraint", f"oss-{call.region}"))


def bucket_stat(call: Call) -> Reply:
    size, objects, uploads = call.store.buckets.usage(call.bucket)
    stat: list[tuple[str, int]] = [
        ("Storage", size),
        ("ObjectCount", objects),
        ("MultipartUploadCount", uploads),
        ("LiveChannelCount", 0),
    ]
    return xml_reply(xml.document("BucketStat", stat))


def put_bucket_acl(call: Call) -> Reply:
    acl = acl_of(call.request, "acl", BUCKET_ACLS)
    if acl is None:
        raise OssError("MissingArgument", ArgumentName=f"{call.request.prefix}acl")
    call.store.buckets.set_acl(call.bucket, acl)
    return Reply()


def get_bucket_acl(call: Call) -> Reply:
    return acl_reply(call.store.buckets.get(call.bucket).acl)


def put_lifecycle(call: Call) -> Reply:
    """Kept as it is; nothing expires here."""
    configuration = xml.parse(call.document, "LifecycleConfiguration")
    if configuration.find("Rule") is None:
        raise OssError("MalformedXML")
    call.store.buckets.set_lifecycle(call.bucket, xml.dump(configuration))
    return Reply()


def get_lifecycle(call: Call) -> Reply:
    document = call.store.buckets.get(call.bucket).lifecycle
    if document is None:
        raise OssError("NoSuchLifecycle", BucketName=call.bucket)
    return xml_reply(document.encode())


def delete_lifecycle(call: Call) -> Reply:
    call.store.buckets.set_lifecycle(call.bucket, None)
    return Reply(204)


def acl_reply(acl: str) -> Reply:
    body = xml.document("AccessControlPolicy", [("Owner", OWNER), ("AccessControlList", [("Grant", acl)])])
    return xml_reply(body)


def _describe(call: Call, bucket: Bucket) -> list[tuple[str, Any]]:
    return [
        ("Name", bucket.name),
        ("CreationDate", iso(bucket.created)),
        ("Location", f"oss-{call.region}"),
        ("Region", call.region),
        ("ExtranetEndpoint", f"oss-{call.region}.aliyuncs.com"),
        ("IntranetEndpoint", f"oss-{call.region}-internal.aliyuncs.com"),
        ("StorageClass", bucket.storage_class),
    ]


def _operation(name: str, run: Callable[[Call], Reply], action: str = "") -> Operation:
    return Operation(name, action or name, run)


LIST_BUCKETS = _operation("ListBuckets", list_buckets)
PUT_BUCKET = _operation("PutBucket", put_bucket)
DELETE_BUCKET = _operation("DeleteBucket", delete_bucket)
HEAD_BUCKET = _operation("HeadBucket", head_bucket, "GetBucketInfo")
BUCKET_INFO = _operation("GetBucketInfo", bucket_info)
BUCKET_LOCATION = _operation("GetBucketLocation", bucket_location)
BUCKET_STAT = _operation("GetBucketStat", bucket_stat)
PUT_BUCKET_ACL = _operation("PutBucketAcl", put_bucket_acl)
GET_BUCKET_ACL = _operation("GetBucketAcl", get_bucket_acl)
PUT_LIFECYCLE = _operation("PutBucketLifecycle", put_lifecycle)
GET_LIFECYCLE = _operation("GetBucketLifecycle", get_lifecycle)
DELETE_LIFECYCLE = _operation("DeleteBucketLifecycle", delete_lifecycle)
