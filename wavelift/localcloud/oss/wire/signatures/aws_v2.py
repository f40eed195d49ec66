"""AWS signature 2: what OSS's own instructions tell boto3 to use. Like OSS's first, with other names."""

from urllib.parse import unquote

from wavelift.localcloud.oss.wire.request import Request
from wavelift.localcloud.oss.wire.signatures.claim import (
    Claim,
    check_skew,
    http_date,
    key_and_signature,
    sha1_signature,
    url_end,
)
from wavelift.localcloud.oss.wire.subresources import names

SCHEME = "AWS "
SPECIAL = "x-amz-"

# The query parameters it covers, and no others.
COVERED = names("""
    accelerate acl analytics cors defaultObjectAcl delete inventory lifecycle location logging metrics notification
    object-lock partNumber policy replication requestPayment response-cache-control response-content-disposition
    response-content-encoding response-content-language response-content-type response-expires restore select
    select-type storageClass tagging torrent uploadId uploads versionId versioning versions website
""")


def header_claim(request: Request) -> Claim:
    key, signature = key_and_signature(request, SCHEME)
    check_skew(http_date(request.header("x-amz-date") or request.header("date")))
    date = "" if request.header("x-amz-date") else request.header("date")
    return _claim(request, key, request.header("x-amz-security-token"), signature, date)


def url_claim(request: Request) -> Claim:
    expires = url_end(request)
    token = request.text("x-amz-security-token")
    return _claim(request, request.text("AWSAccessKeyId"), token, request.text("Signature"), expires)


def _claim(request: Request, key: str, token: str, signature: str, date: str) -> Claim:
    fields = (request.method, request.header("content-md5"), request.header("content-type"), date)
    # A URL carries what would be headers as parameters.
    pairs = {name: value.encode() for name, value in request.query if name.startswith(SPECIAL)}
    pairs |= {name: value.encode("latin-1") for name, value in request.headers.items() if name.startswith(SPECIAL)}
    headers = b"".join(name.encode() + b":" + value.strip() + b"\n" for name, value in sorted(pairs.items()))
    text = ("\n".join(fields) + "\n").encode("latin-1") + headers + _resource(request)
    return Claim(key, token, signature, lambda secret: sha1_signature(secret, text), text)


def _resource(request: Request) -> bytes:
    """The key as it was sent, and always the bucket in front."""
    in_host = unquote(request.path) == f"/{request.key}"
    key = request.path[1:] if in_host else request.path[1:].partition("/")[2]
    path = (f"/{request.bucket}/" if request.bucket else "/").encode() + key.encode("latin-1")
    chosen = sorted((name, value) for name, value in request.query if name in COVERED)
    query = "&".join(f"{name}={value}" if value else name for name, value in chosen)
    return path + b"?" + query.encode() if query else path
