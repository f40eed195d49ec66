"""Who sent a request: signed, fresh, and sent once.

Two ways to sign: ACS3-HMAC-SHA256 in the Authorization header, and the older HMAC-SHA1 among the parameters.
"""

import base64
import hashlib
import hmac
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from wavelift.localcloud.accounts import (
    TEMPORARY,
    Accounts,
    BadToken,
    Credential,
    ExpiredToken,
    ForeignToken,
    UnknownKey,
)
from wavelift.localcloud.errors import ApiError, mandatory, unfit
from wavelift.localcloud.rpc.formats import DATE_FORMAT
from wavelift.localcloud.rpc.request import Request

ALGORITHM = "ACS3-HMAC-SHA256"
VALID_SECONDS = 15 * 60
MUST_BE_SIGNED = frozenset(
    {"host", "x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256"}
)
_AUTHORIZATION = re.compile(
    r"(?P<algorithm>\S+) Credential=(?P<key>[^,]+), ?SignedHeaders=(?P<headers>[^,]+), ?Signature=(?P<signature>\S+)"
)


@dataclass(frozen=True)
class _Claim:
    """What a request says of its sender, and how to find out."""

    key: str
    token: str
    date: str
    nonce: str
    signature: str
    sign: Callable[[str], str]  # the signature that a secret makes
    mismatch: str


class Authenticator:
    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._lock = threading.Lock()
        self._nonces: dict[tuple[str, str], float] = {}

    def check(self, request: Request) -> Credential:
        claim = _in_headers(request) if request.by_headers else _in_parameters(request)
        credential = self._find(claim)
        _check_date(claim.date)
        if not hmac.compare_digest(claim.sign(credential.secret).encode(), claim.signature.encode()):
            raise ApiError("SignatureDoesNotMatch", claim.mismatch)
        self._use(claim.key, claim.nonce)
        return credential

    def _find(self, claim: _Claim) -> Credential:
        if claim.key.startswith(TEMPORARY) and not claim.token:
            raise mandatory("SecurityToken")
        try:
            return self._accounts.find(claim.key, claim.token)
        except UnknownKey:
            raise ApiError("InvalidAccessKeyId.NotFound", "Specified access key is not found.") from None
        except ExpiredToken:
            raise ApiError("InvalidSecurityToken.Expired", "Specified SecurityToken is expired.") from None
        except ForeignToken:
            raise ApiError(
                "InvalidSecurityToken.MismatchWithAccessKey", "Specified SecurityToken mismatch with the AccessKey."
            ) from None
        except BadToken:
            raise ApiError("InvalidSecurityToken.Malformed", "Specified SecurityToken is malformed.") from None

    def _use(self, key: str, nonce: str) -> None:
        now = time.monotonic()
        with self._lock:
            # A dictionary keeps the order of insertion: the old ones come first.
            while self._nonces and next(iter(self._nonces.values())) < now - 2 * VALID_SECONDS:
                del self._nonces[next(iter(self._nonces))]
            if (key, nonce) in self._nonces:
                raise ApiError("SignatureNonceUsed", "Specified signature nonce was used already.")
            self._nonces[key, nonce] = now


def _in_headers(request: Request) -> _Claim:
    line = request.headers.get("authorization")
    if not line:
        raise mandatory("AccessKeyId")
    match = _AUTHORIZATION.fullmatch(line)
    if match is None:
        raise ApiError("IncompleteSignature", "The request signature does not conform to Aliyun standards.")
    if match["algorithm"] != ALGORITHM:
        raise _signature_method()
    signed = match["headers"].split(";")
    needed = MUST_BE_SIGNED | {name for name in request.headers if name.startswith("x-acs-")}
    if absent := needed - (set(signed) & request.headers.keys()):
        raise ApiError("IncompleteSignature", f"Not signed or not sent: {', '.join(sorted(absent))}.")
    if request.headers["x-acs-content-sha256"] != hashlib.sha256(request.body).hexdigest():
        raise ApiError("SignatureDoesNotMatch", "x-acs-content-sha256 is not the digest of the body.")
    canonical = canonical_request(request, signed)
    text = f"{ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    return _Claim(
        key=match["key"],
        token=request.headers.get("x-acs-security-token", ""),
        date=request.headers["x-acs-date"],
        nonce=request.headers["x-acs-signature-nonce"],
        signature=match["signature"],
        sign=lambda secret: hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest(),
        mismatch="Specified signature does not match our calculation. "
        f"server StringToSign is [{text}] server CanonicalRequest is [{canonical}]",
    )


def canonical_request(request: Request, signed: list[str]) -> str:
    headers = "".join(f"{name}:{request.headers.get(name, '').strip()}\n" for name in signed)
    query, digest = _encoded(request.query_pairs), request.headers["x-acs-content-sha256"]
    return "\n".join((request.method, request.path, query, headers, ";".join(signed), digest))


def _in_parameters(request: Request) -> _Claim:
    fields = request.fields
    for name in ("AccessKeyId", "Signature", "SignatureNonce", "SignatureVersion", "Timestamp"):
        if not fields.get(name):
            raise mandatory(name)
    if fields.get("SignatureMethod", "HMAC-SHA1") != "HMAC-SHA1":
        raise _signature_method()
    if fields["SignatureVersion"] != "1.0":
        raise unfit("SignatureVersion")
    text = string_to_sign(request.method, fields)
    return _Claim(
        key=fields["AccessKeyId"],
        token=fields.get("SecurityToken", ""),
        date=fields["Timestamp"],
        nonce=fields["SignatureNonce"],
        signature=fields["Signature"],
        sign=lambda secret: base64.b64encode(
            hmac.new(f"{secret}&".encode(), text.encode(), hashlib.sha1).digest()
        ).decode(),
        # The older SDK compares what comes after the colon with its own text: when equal, it blames the secret.
        mismatch=f"Specified signature is not matched with our calculation. server string to sign is:{text}",
    )


def string_to_sign(method: str, fields: dict[str, str]) -> str:
    pairs = [(name, value) for name, value in fields.items() if name != "Signature"]
    return f"{method}&%2F&{quote(_encoded(pairs), safe='~')}"


def _encoded(pairs: list[tuple[str, str]]) -> str:
    """Decoded and encoded again: on the way a space may be a plus, for the signature it is %20."""
    return "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(pairs))


def _signature_method() -> ApiError:
    return ApiError("InvalidSignatureMethod", "Specified signature method is not valid.")


def _check_date(text: str) -> None:
    try:
        date = datetime.strptime(text, DATE_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise ApiError("InvalidTimeStamp.Format", "Specified time stamp or date value is not well formatted.") from None
    if abs((datetime.now(UTC) - date).total_seconds()) > VALID_SECONDS:
        raise ApiError("InvalidTimeStamp.Expired", "Specified time stamp or date value is expired.")
