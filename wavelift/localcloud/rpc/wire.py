"""The protocol of the ECS API: signed requests in, JSON out. Knows no resource."""

import hashlib
import hmac
import json
import re
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote

from wavelift.localcloud.errors import ApiError

ALGORITHM = "ACS3-HMAC-SHA256"
VERSION = "2014-05-26"
VALID_SECONDS = 15 * 60
DATE_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
MUST_BE_SIGNED = frozenset(
    {"host", "x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256"}
)
_AUTHORIZATION = re.compile(
    ALGORITHM + r" Credential=(?P<key>[^,]+), ?SignedHeaders=(?P<headers>[^,]+), ?Signature=(?P<signature>[0-9a-f]+)"
)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: str  # raw, as it came
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def header(self, name: str) -> str:
        value = self.headers.get(name, "")
        if not value:
            raise ApiError("MissingParameter", f'The header "{name}" that is mandatory is not supplied.')
        return value

    @property
    def action(self) -> str:
        return self.header("x-acs-action")

    def query_pairs(self) -> list[tuple[str, str]]:
        return parse_qsl(self.query, keep_blank_values=True)

    def parameters(self) -> dict[str, str]:
        pairs = self.query_pairs()
        if self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            pairs += parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True)
        return dict(pairs)


class Authenticator:
    """Checks who signed a request, that it is fresh, and that it comes once."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = dict(keys)
        self._lock = threading.Lock()
        self._nonces: dict[tuple[str, str], float] = {}

    def check(self, request: Request) -> None:
        if not request.headers.get("authorization"):
            raise ApiError("MissingAccessKeyId", "AccessKeyId is mandatory for this action.")
        match = _AUTHORIZATION.fullmatch(request.headers["authorization"])
        if match is None:
            raise ApiError("IncompleteSignature", f"The request is not signed as {ALGORITHM} requires.")
        key = match["key"]
        if key not in self._keys:
            raise ApiError("InvalidAccessKeyId.NotFound", "Specified access key is not found.", 404)
        signed = match["headers"].split(";")
        if absent := MUST_BE_SIGNED - set(signed):
            raise ApiError("IncompleteSignature", f"Not signed: {', '.join(sorted(absent))}.")
        _check_date(request.header("x-acs-date"))
        if request.header("x-acs-content-sha256") != hashlib.sha256(request.body).hexdigest():
            raise _mismatch("The body is not the one that was signed.")
        expected = sign(self._keys[key], canonical(request, signed))
        if not hmac.compare_digest(expected, match["signature"]):
            raise _mismatch("Specified signature is not matched with our calculation.")
        self._use(key, request.header("x-acs-signature-nonce"))

    def _use(self, key: str, nonce: str) -> None:
        now = time.monotonic()
        with self._lock:
            # A dictionary keeps the order of insertion: the old ones come first.
            while self._nonces and next(iter(self._nonces.values())) < now - 2 * VALID_SECONDS:
                del self._nonces[next(iter(self._nonces))]
            if (key, nonce) in self._nonces:
                raise ApiError("SignatureNonceUsed", "Specified signature nonce was used already.")
            self._nonces[key, nonce] = now


def canonical(request: Request, signed: list[str]) -> str:
    """The query is decoded and encoded again: on the way a space may be a plus, for the signature it is %20."""
    query = "&".join(
        f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(request.query_pairs())
    )
    headers = "".join(f"{name}:{request.headers.get(name, '').strip()}\n" for name in signed)
    digest = request.header("x-acs-content-sha256")
    return "\n".join((request.method, request.path, query, headers, ";".join(signed), digest))


def sign(secret: str, canonical_request: str) -> str:
    text = f"{ALGORITHM}\n{hashlib.sha256(canonical_request.encode()).hexdigest()}"
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def _mismatch(reason: str) -> ApiError:
    return ApiError("SignatureDoesNotMatch", reason)


def _check_date(text: str) -> None:
    try:
        date = datetime.strptime(text, DATE_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise ApiError("InvalidTimeStamp.Format", "Specified time stamp is not well formatted.") from None
    if abs((datetime.now(UTC) - date).total_seconds()) > VALID_SECONDS:
        raise ApiError("InvalidTimeStamp.Expired", "Specified time stamp or date value is expired.")


def check_version(request: Request) -> None:
    if request.header("x-acs-version") != VERSION:
        raise ApiError("InvalidVersion", f"Specified parameter Version is not valid; {VERSION} is.")


def new_request_id() -> str:
    return str(uuid.uuid4()).upper()


def success_body(request_id: str, reply: Mapping[str, Any]) -> bytes:
    return json.dumps({"RequestId": request_id, **reply}).encode()


def error_body(request_id: str, host: str, error: ApiError) -> bytes:
    recommend = f"https://api.alibabacloud.com/troubleshoot?q={quote(error.code)}&product=Ecs&requestId={request_id}"
    body = {
        "RequestId": request_id,
        "HostId": host,
        "Code": error.code,
        "Message": error.message,
        "Recommend": recommend,
    }
    return json.dumps(body).encode()


def timestamp(seconds: float) -> str:
    """Empty for what has not happened."""
    return datetime.fromtimestamp(seconds, UTC).strftime(DATE_FORMAT) if seconds else ""
