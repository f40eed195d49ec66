"""Operations on objects."""

import dataclasses
import hashlib

from wavelift.localcloud.oss.errors import OssError, invalid_argument
from wavelift.localcloud.oss.model.objects import LARGEST
from wavelift.localcloud.oss.model.values import Meta
from wavelift.localcloud.oss.wire import headers, xml
from wavelift.localcloud.oss.wire.calls import Body, Call, Operation, Reply, xml_reply
from wavelift.localcloud.oss.wire.operations.buckets import acl_reply
from wavelift.localcloud.oss.wire.ranges import parse_range
from wavelift.localcloud.oss.wire.times import iso

MOST_DELETED = 1000


def before_put(call: Call) -> None:
    headers.meta_of(call.request)
    call.allow_acl(headers.object_acl_of(call.request))
    call.store.objects.check_free(call.bucket, call.key, headers.only_new(call.request))


def put_object(call: Call) -> Reply:
    request = call.request
    meta, only_new = headers.meta_of(request), headers.only_new(request)
    new = call.store.objects.put(call.bucket, call.key, call.content, meta, only_new)
    return Reply(200, {**headers.checks(new.etag, new.crc64), "Content-MD5": headers.content_md5(new.etag)})


def before_append(call: Call) -> None:
    _position(call)
    before_put(call)


def append_object(call: Call) -> Reply:
    meta = headers.meta_of(call.request)
    new = call.store.objects.append(call.bucket, call.key, _position(call), call.content, meta)
    return Reply(200, {**headers.checks(new.etag, new.crc64), "x-oss-next-append-position": str(new.size)})


def copy_object(call: Call) -> Reply:
    request = call.request
    source = headers.copy_source(request)
    call.allow("GetObject", *source)
    call.allow_acl(headers.object_acl_of(request))
    given = headers.meta_of(request)
    directives = {name: _directive(call, name) for name in ("metadata-directive", "tagging-directive")}

    def meta(old: Meta) -> Meta:
        kept = dataclasses.replace(old, acl=given.acl)
        if request.special("storage-class"):
            kept = dataclasses.replace(kept, storage_class=given.storage_class)
        if directives["metadata-directive"] == "replace":
            kept = dataclasses.replace(kept, headers=given.headers, user=given.user)
        if directives["tagging-directive"] == "replace":
            kept = dataclasses.replace(kept, tags=given.tags)
        return kept

    check = headers.conditions(request.headers, f"{request.prefix}copy-source-")
    new = call.store.objects.copy(source, (call.bucket, call.key), check, meta, headers.only_new(request))
    body = xml.document("CopyObjectResult", [("LastModified", iso(new.modified)), ("ETag", f'"{new.etag}"')])
    return xml_reply(body, headers.checks(new.etag, new.crc64))


def get_object(call: Call) -> Reply:
    request = call.request
    found, reader = call.store.objects.open(call.bucket, call.key, headers.conditions(request.headers))
    try:
        said = headers.describe(found, request) | headers.overrides(request)
        standard = request.header("x-oss-range-behavior") == "standard"
        span = parse_range(request.header("range"), found.size, standard)
    except BaseException:
        reader.close()
        raise
    if span is None:
        return Reply(200, said, content=(reader, 0, found.size))
    said.pop("Content-MD5", None)
    first, last = span
    said["Content-Range"] = f"bytes {first}-{last}/{found.size}"
    return Reply(206, said, content=(reader, first, last + 1))


def head_object(call: Call) -> Reply:
    found = call.store.objects.get(call.bucket, call.key)
    headers.conditions(call.request.headers)(found)
    return Reply(200, {**headers.describe(found, call.request), "Content-Length": str(found.size)})


def object_meta(call: Call) -> Reply:
    found = call.store.objects.get(call.bucket, call.key)
    described = headers.describe(found, call.request)
    kept = {name: described[name] for name in ("ETag", "Last-Modified", "x-oss-hash-crc64ecma")}
    return Reply(200, {**kept, "Content-Length": str(found.size)})


def delete_object(call: Call) -> Reply:
    call.store.objects.delete(call.bucket, [call.key])
    return Reply(204)


def delete_objects(call: Call) -> Reply:
    if headers.said_md5(call.request) is None:
        raise OssError("MissingArgument", "Missing Some Required Arguments.", ArgumentName="Content-MD5")
    headers.check_md5(call.request, hashlib.md5(call.document, usedforsecurity=False).digest())
    asked = xml.parse(call.document, "Delete")
    if asked.find("Object/VersionId") is not None:
        raise OssError("NotImplemented", ArgumentName="VersionId")
    keys = [xml.text(element, "Key") for element in asked.findall("Object")]
    if not 0 < len(keys) <= MOST_DELETED:
        raise OssError("MalformedXML")
    for key in keys:
        call.allow("DeleteObject", call.bucket, key)
    call.store.objects.delete(call.bucket, keys)
    if (asked.findtext("Quiet") or "").lower() == "true":
        return xml_reply(xml.document("DeleteResult", ""))
    encode = call.request.text("encoding-type") == "url"
    shown = [("Deleted", [("Key", headers.encode_name(key, encode))]) for key in keys]
    note = [("EncodingType", "url")] if encode else []
    return xml_reply(xml.document("DeleteResult", [*note, *shown]))


def put_object_acl(call: Call) -> Reply:
    name = "acl" if call.request.s3 else "object-acl"
    acl = headers.acl_of(call.request, name, headers.OBJECT_ACLS)
    if acl is None:
        raise OssError("MissingArgument", ArgumentName=call.request.prefix + name)
    call.store.objects.set_acl(call.bucket, call.key, acl)
    return Reply()


def get_object_acl(call: Call) -> Reply:
    return acl_reply(call.store.objects.get(call.bucket, call.key).meta.acl)


def put_tagging(call: Call) -> Reply:
    tags = xml.parse(call.document, "Tagging").findall("TagSet/Tag")
    pairs = [(xml.text(tag, "Key"), tag.findtext("Value") or "") for tag in tags]
    if len(pairs) > headers.MOST_TAGS or len(dict(pairs)) != len(pairs):
        raise OssError("InvalidTag")
    call.store.objects.set_tags(call.bucket, call.key, dict(pairs))
    return Reply()


def get_tagging(call: Call) -> Reply:
    tags = call.store.objects.get(call.bucket, call.key).meta.tags
    shown = [("Tag", [("Key", key), ("Value", value)]) for key, value in tags.items()]
    return xml_reply(xml.document("Tagging", [("TagSet", shown)]))


def delete_tagging(call: Call) -> Reply:
    call.store.objects.set_tags(call.bucket, call.key, {})
    return Reply(204)


def _position(call: Call) -> int:
    if call.request.parameter("position") is None:
        raise OssError("MissingArgument", "Missing Some Required Arguments.", ArgumentName="position")
    return call.request.number("position", 0, 0, LARGEST)


def _directive(call: Call, name: str) -> str:
    value = call.request.special(name).lower() or "copy"
    if value not in {"copy", "replace"}:
        raise invalid_argument(call.request.prefix + name, value)
    return value


PUT_OBJECT = Operation("PutObject", "PutObject", put_object, Body.CONTENT, before_put)
APPEND_OBJECT = Operation("AppendObject", "PutObject", append_object, Body.CONTENT, before_append)
COPY_OBJECT = Operation("CopyObject", "PutObject", copy_object)
GET_OBJECT = Operation("GetObject", "GetObject", get_object)
HEAD_OBJECT = Operation("HeadObject", "GetObject", head_object)
OBJECT_META = Operation("GetObjectMeta", "GetObject", object_meta)
DELETE_OBJECT = Operation("DeleteObject", "DeleteObject", delete_object)
DELETE_OBJECTS = Operation("DeleteMultipleObjects", "", delete_objects)
PUT_OBJECT_ACL = Operation("PutObjectACL", "PutObjectAcl", put_object_acl)
GET_OBJECT_ACL = Operation("GetObjectACL", "GetObjectAcl", get_object_acl)
PUT_TAGGING = Operation("PutObjectTagging", "PutObjectTagging", put_tagging)
GET_TAGGING = Operation("GetObjectTagging", "GetObjectTagging", get_tagging)
DELETE_TAGGING = Operation("DeleteObjectTagging", "DeleteObjectTagging", delete_tagging)
