"""What headers say of an object, both ways."""

import base64
import binascii
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from wavelift.localcloud.oss.errors import OssError, invalid_argument
from wavelift.localcloud.oss.model.blobs import Staged
from wavelift.localcloud.oss.model.objects import Check
from wavelift.localcloud.oss.model.values import Kind, Meta, Object
from wavelift.localcloud.oss.wire.request import Request

KEPT = ("content-type", "cache-control", "content-disposition", "content-encoding", "content-language", "expires")
BUCKET_ACLS = frozenset({"private", "public-read", "public-read-write"})
OBJECT_ACLS = BUCKET_ACLS | {"default"}
STORAGE_CLASSES = {name.lower(): name for name in ("Standard", "IA", "Archive", "ColdArchive", "DeepColdArchive")} | {
    "standard_ia": "IA"
}
MOST_TAGS = 10
MD5_BYTES = 16
OVERRIDES = "response-"


def meta_of(request: Request) -> Meta:
    """What a request says of the object it makes."""
    prefix = f"{request.prefix}meta-"
    headers = {name: request.headers[name] for name in KEPT if name in request.headers}
    headers.setdefault("content-type", "application/octet-stream")
    user = {name.removeprefix(prefix): value for name, value in request.headers.items() if name.startswith(prefix)}
    acl = object_acl_of(request) or "default"
    return Meta(headers, user, tags_of(request.special("tagging")), acl, storage_class_of(request))


def object_acl_of(request: Request) -> str | None:
    return acl_of(request, "acl" if request.s3 else "object-acl", OBJECT_ACLS)


def acl_of(request: Request, name: str, known: frozenset[str]) -> str | None:
    value = request.special(name)
    if value and value not in known:
        raise invalid_argument(request.prefix + name, value)
    return value or None


def storage_class_of(request: Request) -> str:
    value = request.special("storage-class") or "Standard"
    if value.lower() not in STORAGE_CLASSES:
        raise invalid_argument(f"{request.prefix}storage-class", value)
    return STORAGE_CLASSES[value.lower()]


def tags_of(header: str) -> dict[str, str]:
    pairs = parse_qsl(header, keep_blank_values=True)
    if len(pairs) > MOST_TAGS or len(dict(pairs)) != len(pairs):
        raise OssError("InvalidTag")
    return dict(pairs)


def only_new(request: Request) -> bool:
    return request.header("x-oss-forbid-overwrite").lower() == "true"


def describe(found: Object, request: Request) -> dict[str, str]:
    """The headers of an object that is read."""
    meta = found.meta
    headers = {name.title(): value for name, value in meta.headers.items()}
    headers |= {"Last-Modified": formatdate(found.modified, usegmt=True), "Accept-Ranges": "bytes"}
    headers |= {f"{request.prefix}meta-{name}": value for name, value in meta.user.items()}
    headers |= checks(found.etag, found.crc64)
    headers |= {"x-oss-object-type": found.kind, "x-oss-storage-class": meta.storage_class}
    if found.kind is Kind.NORMAL and len(found.etag) == 2 * MD5_BYTES:
        headers["Content-MD5"] = content_md5(found.etag)
    if found.kind is Kind.APPENDABLE:
        headers["x-oss-next-append-position"] = str(found.size)
    if meta.tags:
        headers[f"{request.prefix}tagging-count"] = str(len(meta.tags))
    return headers


def overrides(request: Request) -> dict[str, str]:
    """What a URL says a download is to be called, whatever the object says."""
    found: dict[str, str] = {}
    for name, value in request.query:
        header = name.removeprefix(OVERRIDES)
        if name.startswith(OVERRIDES) and header in KEPT:
            if not value.isprintable():  # a line break would begin a header of its own
                raise invalid_argument(name, value)
            found[header.title()] = value.encode().decode("latin-1")
    return found


def checks(etag: str, crc64: int) -> dict[str, str]:
    return {"ETag": f'"{etag}"', "x-oss-hash-crc64ecma": str(crc64)}


def content_md5(etag: str) -> str:
    return base64.b64encode(bytes.fromhex(etag)).decode()


def check_digest(request: Request, staged: Staged) -> None:
    """What came against what its sender says of it."""
    check_md5(request, bytes.fromhex(staged.md5))
    if staged.sha256 and staged.sha256 != request.header("x-amz-content-sha256"):
        raise sha256_mismatch(request, staged.sha256)


def check_md5(request: Request, digest: bytes) -> None:
    expected = said_md5(request)
    if expected is not None and expected != digest:
        calculated, said = base64.b64encode(digest).decode(), request.header("content-md5")
        raise OssError("BadDigest", ClientComputedContentMD5=said, ServerComputedContentMD5=calculated)


def said_md5(request: Request) -> bytes | None:
    header = request.header("content-md5")
    if not header:
        return None
    try:
        value = base64.b64decode(header, validate=True)
    except binascii.Error:
        value = b""
    if len(value) != MD5_BYTES:
        raise OssError("InvalidDigest", **{"Content-MD5": header})
    return value


def sha256_mismatch(request: Request, calculated: str) -> OssError:
    said = request.header("x-amz-content-sha256")
    return OssError(
        "XAmzContentSHA256Mismatch", ClientComputedContentSHA256=said, ServerComputedContentSHA256=calculated
    )


def conditions(headers: Mapping[str, str], prefix: str = "") -> Check:
    """If-Match and its kin, or with the prefix those on the source of a copy."""

    def check(found: Object) -> None:
        match, none_match = headers.get(f"{prefix}if-match"), headers.get(f"{prefix}if-none-match")
        since = _date(headers.get(f"{prefix}if-modified-since"))
        until = _date(headers.get(f"{prefix}if-unmodified-since"))
        if match and not _matches(match, found.etag):
            raise OssError("PreconditionFailed", Condition="If-Match")
        if until is not None and found.modified > until:
            raise OssError("PreconditionFailed", Condition="If-Unmodified-Since")
        # The date is for those who have no entity tag: RFC 9110 ignores it beside one.
        known = _matches(none_match, found.etag) if none_match else since is not None and found.modified <= since
        if known:
            raise OssError("NotModified", ETag=f'"{found.etag}"')

    return check


def copy_source(request: Request) -> tuple[str, str]:
    """Bucket and key. The header has the key encoded, with or without a slash in front."""
    header = request.special("copy-source")
    path, asks, _ = header.partition("?")
    if asks:
        raise OssError("NotImplemented", ArgumentName=f"{request.prefix}copy-source")
    try:
        decoded = unquote_to_bytes(path.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise invalid_argument(f"{request.prefix}copy-source", header) from None
    bucket, _, key = decoded.removeprefix("/").partition("/")
    if not bucket or not key:
        raise invalid_argument(f"{request.prefix}copy-source", header)
    return bucket, key


def encode_name(name: str, encodes: bool) -> str:
    return quote(name, safe="") if encodes else name


def _matches(header: str, etag: str) -> bool:
    return header.strip() == "*" or etag in {each.strip().strip('"').upper() for each in header.split(",")}


def _date(header: str | None) -> float | None:
    if not header:
        return None
    try:
        return parsedate_to_datetime(header).timestamp()
    except (ValueError, OverflowError):
        return None
