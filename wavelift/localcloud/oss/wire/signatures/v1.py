"""OSS signature 1: HMAC-SHA1 over a few headers and the resource."""

from wavelift.localcloud.oss.wire.request import Request
from wavelift.localcloud.oss.wire.signatures.claim import (
    Claim,
    check_skew,
    http_date,
    key_and_signature,
    sha1_signature,
    url_end,
)
from wavelift.localcloud.oss.wire.subresources import SUBRESOURCES

SCHEME = "OSS "


def header_claim(request: Request) -> Claim:
    key, signature = key_and_signature(request, SCHEME)
    date = request.header("x-oss-date") or request.header("date")
    check_skew(http_date(date))
    token = request.header("x-oss-security-token") or request.header("security-token")
    return _claim(request, key, token, signature, date)


def url_claim(request: Request) -> Claim:
    expires = url_end(request)
    token = request.text("security-token")
    return _claim(request, request.text("OSSAccessKeyId"), token, request.text("Signature"), expires)


def _claim(request: Request, key: str, token: str, signature: str, date: str) -> Claim:
    text = string_to_sign(request, date)
    return Claim(key, token, signature, lambda secret: sha1_signature(secret, text), text)


def string_to_sign(request: Request, date: str) -> bytes:
    fields = (request.method, request.header("content-md5"), request.header("content-type"), date)
    special = sorted((name, value) for name, value in request.headers.items() if name.startswith("x-oss-"))
    headers = "".join(f"{name}:{value.strip()}\n" for name, value in special)
    return ("\n".join(fields) + "\n" + headers).encode("latin-1") + _resource(request).encode()


def _resource(request: Request) -> str:
    path = f"/{request.bucket}/{request.key}" if request.bucket else "/"
    chosen = sorted((name, value) for name, value in request.query if name in SUBRESOURCES)
    query = "&".join(f"{name}={value}" if value else name for name, value in chosen)
    return f"{path}?{query}" if query else path
