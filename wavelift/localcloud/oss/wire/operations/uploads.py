"""Operations on multipart uploads."""

from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.model.uploads import MOST_PARTS
from wavelift.localcloud.oss.wire import headers, xml
from wavelift.localcloud.oss.wire.calls import Body, Call, Operation, Reply, xml_reply
from wavelift.localcloud.oss.wire.ranges import parse_span
from wavelift.localcloud.oss.wire.times import iso


def initiate(call: Call) -> Reply:
    request = call.request
    call.allow_acl(headers.object_acl_of(request))
    upload = call.store.uploads.begin(call.bucket, call.key, headers.meta_of(request), headers.only_new(request))
    encode = request.text("encoding-type") == "url"
    note = [("EncodingType", "url")] if encode else []
    key = headers.encode_name(call.key, encode)
    body = [*note, ("Bucket", call.bucket), ("Key", key), ("UploadId", upload.id)]
    return xml_reply(xml.document("InitiateMultipartUploadResult", body))


def before_part(call: Call) -> None:
    call.store.uploads.check(call.bucket, call.key, _upload(call), _number(call))


def upload_part(call: Call) -> Reply:
    part = call.store.uploads.put(call.bucket, call.key, _upload(call), _number(call), call.content)
    return Reply(200, {**headers.checks(part.etag, part.crc64), "Content-MD5": headers.content_md5(part.etag)})


def upload_part_copy(call: Call) -> Reply:
    request = call.request
    source = headers.copy_source(request)
    call.allow("GetObject", *source)
    check = headers.conditions(request.headers, f"{request.prefix}copy-source-")
    span = parse_span(request.special("copy-source-range"))
    part, found = call.store.uploads.copy(call.bucket, call.key, _upload(call), _number(call), source, check, span)
    said = headers.checks(part.etag, part.crc64)
    if span is not None:
        said["Content-Range"] = f"bytes {span[0]}-{span[1]}/{found.size}"
    body = xml.document("CopyPartResult", [("LastModified", iso(part.modified)), ("ETag", f'"{part.etag}"')])
    return xml_reply(body, said)


def complete(call: Call) -> Reply:
    request = call.request
    everything = request.header("x-oss-complete-all").lower() == "yes"
    if everything and call.document:
        raise OssError("InvalidArgument", "The body must be empty with x-oss-complete-all.", ArgumentName="body")
    wanted = None if everything else _wanted(call.document)
    new = call.store.uploads.complete(call.bucket, call.key, _upload(call), wanted, headers.only_new(request))
    encode = request.text("encoding-type") == "url"
    note = [("EncodingType", "url")] if encode else []
    body = [
        *note,
        ("Location", f"http://{request.host}{request.path}"),
        ("Bucket", call.bucket),
        ("Key", headers.encode_name(call.key, encode)),
        ("ETag", f'"{new.etag}"'),
    ]
    return xml_reply(xml.document("CompleteMultipartUploadResult", body), headers.checks(new.etag, new.crc64))


def abort(call: Call) -> Reply:
    call.store.uploads.abort(call.bucket, call.key, _upload(call))
    return Reply(204)


def _wanted(document: bytes) -> list[tuple[int, str]]:
    parts = xml.parse(document, "CompleteMultipartUpload").findall("Part")
    try:
        return [(int(xml.text(part, "PartNumber")), xml.text(part, "ETag")) for part in parts]
    except ValueError:
        raise OssError("MalformedXML") from None


def _upload(call: Call) -> str:
    return call.request.text("uploadId")


def _number(call: Call) -> int:
    return call.request.number("partNumber", 0, 1, MOST_PARTS)


INITIATE = Operation("InitiateMultipartUpload", "PutObject", initiate)
UPLOAD_PART = Operation("UploadPart", "PutObject", upload_part, Body.CONTENT, before_part)
UPLOAD_PART_COPY = Operation("UploadPartCopy", "PutObject", upload_part_copy)
COMPLETE = Operation("CompleteMultipartUpload", "PutObject", complete)
ABORT = Operation("AbortMultipartUpload", "AbortMultipartUpload", abort)
