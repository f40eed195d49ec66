"""OSS signature 4: HMAC-SHA256 with a key made for one day and one region."""

import hashlib
import hmac
import re
from urllib.parse import quote

from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.wire.request import Request
from wavelift.localcloud.oss.wire.signatures.claim import (
    Claim,
    bad_authorization,
    canonical_query,
    chain,
    check_names,
    check_period,
    check_scope,
    check_skew,
    compact_date,
)

ALGORITHM = "OSS4-HMAC-SHA256"
MARK = "aliyun_v4_request"
UNSIGNED = "UNSIGNED-PAYLOAD"
_ITEM = re.compile(r"\s*(Credential|AdditionalHeaders|Signature)=([^,\s]*)\s*")


def header_claim(request: Request, region: str) -> Claim:
    matches = [_ITEM.fullmatch(item) for item in request.header("authorization").removeprefix(ALGORITHM).split(",")]
    items = {match[1]: match[2] for match in matches if match}
    if len(items) != len(matches) or not {"Credential", "Signature"} <= set(items):
        raise bad_authorization(request)
    date = request.header("x-oss-date")
    check_skew(compact_date(date))
    token = request.header("x-oss-security-token")
    signed = items.get("AdditionalHeaders", "")
    return _claim(request, region, items["Credential"], token, date, signed, items["Signature"])


def url_claim(request: Request, region: str) -> Claim:
    date = request.text("x-oss-date")
    check_period(compact_date(date), request.text("x-oss-expires"), "x-oss-expires")
    return _claim(
        request,
        region,
        request.text("x-oss-credential"),
        request.text("x-oss-security-token"),
        date,
        request.text("x-oss-additional-headers"),
        request.text("x-oss-signature"),
    )


def _claim(request: Request, region: str, credential: str, token: str, date: str, signed: str, signature: str) -> Claim:
    key, *scope = credential.split("/")
    check_scope(scope, date, region, "oss", MARK)
    canonical = canonical_request(request, signed)
    digest = hashlib.sha256(canonical).hexdigest()
    text = "\n".join((ALGORITHM, date, "/".join(scope), digest)).encode()

    def expected(secret: str) -> str:
        return hmac.new(chain(f"aliyun_v4{secret}", *scope), text, hashlib.sha256).hexdigest()

    return Claim(key, token, signature, expected, text, {"CanonicalRequest": canonical.decode("latin-1")})


def canonical_request(request: Request, signed: str) -> bytes:
    payload = request.header("x-oss-content-sha256") or UNSIGNED
    if payload != UNSIGNED:
        raise OssError("InvalidArgument", ArgumentName="x-oss-content-sha256", ArgumentValue=payload)
    additional = sorted(filter(None, check_names(signed.lower())))
    headers = "".join(
        f"{name}:{value.strip()}\n"
        for name, value in sorted(request.headers.items())
        if name.startswith("x-oss-") or name in {"content-type", "content-md5"} or name in additional
    )
    path = f"/{request.bucket}/{request.key}" if request.bucket else "/"
    query = canonical_query(request, without="x-oss-signature")
    lines = (request.method, quote(path, safe="/~"), query, headers, ";".join(additional), payload)
    return "\n".join(lines).encode("latin-1")
