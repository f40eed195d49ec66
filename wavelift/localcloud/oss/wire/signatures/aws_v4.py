"""AWS signature 4, as S3 has it: what boto3 sends."""

import hashlib
import hmac
import re
from urllib.parse import quote, unquote

from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.wire.request import S3_ALGORITHM, Request
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

MARK = "aws4_request"
UNSIGNED = "UNSIGNED-PAYLOAD"
_AUTHORIZATION = re.compile(
    S3_ALGORITHM + r"\s+Credential=(?P<credential>[^,\s]+),\s*SignedHeaders=(?P<signed>[^,\s]+),\s*"
    r"Signature=(?P<signature>[0-9a-f]+)"
)


def header_claim(request: Request) -> Claim:
    match = _AUTHORIZATION.fullmatch(request.header("authorization").strip())
    if match is None:
        raise bad_authorization(request)
    date = request.header("x-amz-date")
    check_skew(compact_date(date))
    payload = request.header("x-amz-content-sha256")
    token = request.header("x-amz-security-token")
    return _claim(request, match["credential"], token, date, match["signed"], match["signature"], payload)


def url_claim(request: Request) -> Claim:
    date = request.text("X-Amz-Date")
    check_period(compact_date(date), request.text("X-Amz-Expires"), "X-Amz-Expires")
    return _claim(
        request,
        request.text("X-Amz-Credential"),
        request.text("X-Amz-Security-Token"),
        date,
        request.text("X-Amz-SignedHeaders"),
        request.text("X-Amz-Signature"),
        UNSIGNED,
    )


def _claim(
    request: Request, credential: str, token: str, date: str, signed: str, signature: str, payload: str
) -> Claim:
    key, *scope = credential.split("/")
    check_scope(scope, date, None, "s3", MARK)  # OSS's own instructions name a region it does not have
    names = check_names(signed)
    missing = {name for name in request.headers if name.startswith("x-amz-")} - set(names)
    if "host" not in names or missing:
        raise OssError("AccessDenied", "There were headers present in the request which were not signed.")
    headers = "".join(f"{name}:{' '.join(request.header(name).split())}\n" for name in names)
    path = quote(unquote(request.path), safe="/~")
    query = canonical_query(request, without="X-Amz-Signature", empty="=")
    canonical = "\n".join((request.method, path, query, headers, signed, payload)).encode("latin-1")
    digest = hashlib.sha256(canonical).hexdigest()
    text = "\n".join((S3_ALGORITHM, date, "/".join(scope), digest)).encode()

    def expected(secret: str) -> str:
        return hmac.new(chain(f"AWS4{secret}", *scope), text, hashlib.sha256).hexdigest()

    return Claim(key, token, signature, expected, text, {"CanonicalRequest": canonical.decode("latin-1")})
