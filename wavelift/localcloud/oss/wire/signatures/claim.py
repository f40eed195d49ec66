"""What every method of signing comes down to."""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.wire.request import Request
from wavelift.localcloud.oss.wire.times import iso

SKEW = 15 * 60
LONGEST = 7 * 24 * 3600
COMPACT = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Claim:
    """Somebody says that they hold a key, and this is their proof."""

    key: str
    token: str
    signature: str
    expected: Callable[[str], str]  # the signature that the secret makes
    text: bytes  # that was to be signed
    details: dict[str, str] = field(default_factory=dict)  # what else helps whoever got it wrong


def chain(secret: str, *steps: str) -> bytes:
    key = secret.encode()
    for step in steps:
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    return key


def canonical_query(request: Request, without: str = "", empty: str = "") -> str:
    """Sorted and encoded; a parameter without a value is followed by `empty`."""
    pairs = sorted((encode(name), encode(value)) for name, value in request.query if name != without)
    return "&".join(f"{name}={value}" if value else f"{name}{empty}" for name, value in pairs)


def encode(text: str) -> str:
    return quote(text, safe="~")


def check_names(signed: str) -> list[str]:
    """Of headers that a claim says it covers."""
    if not signed.isascii():
        raise OssError("InvalidArgument", ArgumentName="SignedHeaders", ArgumentValue=signed)
    return signed.split(";")


def check_skew(moment: float) -> None:
    now = time.time()
    if abs(now - moment) > SKEW:
        raise OssError(
            "RequestTimeTooSkewed",
            MaxAllowedSkewMilliseconds=str(SKEW * 1000),
            RequestTime=iso(moment),
            ServerTime=iso(now),
        )


def url_end(request: Request) -> str:
    """Of a URL that is good until a moment: that moment, in seconds, as it was signed."""
    expires = request.text("Expires")
    if not re.fullmatch("[0-9]{1,12}", expires):
        raise OssError("AccessDenied", "Invalid date (should be seconds since epoch): " + expires)
    check_end(int(expires))
    return expires


def check_period(begin: float, seconds: str, name: str) -> None:
    """Of a URL that is good from its date on, for some seconds."""
    if not re.fullmatch("[0-9]{1,10}", seconds) or not 0 < int(seconds) <= LONGEST:
        raise OssError("InvalidArgument", ArgumentName=name, ArgumentValue=seconds)
    if begin > time.time() + SKEW:
        raise OssError("AccessDenied", "Request is not valid yet.", ServerTime=iso(time.time()))
    check_end(begin + int(seconds))


def check_end(moment: float) -> None:
    if time.time() > moment:
        raise OssError("AccessDenied", "Request has expired.", Expires=iso(moment), ServerTime=iso(time.time()))


def sha1_signature(secret: str, text: bytes) -> str:
    return base64.b64encode(hmac.new(secret.encode(), text, hashlib.sha1).digest()).decode()


def http_date(text: str) -> float:
    """As HTTP writes dates, or as the younger methods do."""
    if text.endswith("Z") and "T" in text:
        return compact_date(text)
    try:
        return parsedate_to_datetime(text).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        raise no_date() from None


def compact_date(text: str) -> float:
    try:
        return datetime.strptime(text, COMPACT).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise no_date() from None


def no_date() -> OssError:
    return OssError("AccessDenied", "OSS authentication requires a valid Date.")


def key_and_signature(request: Request, scheme: str) -> tuple[str, str]:
    """Of a header `SCHEME key:signature`."""
    key, colon, signature = request.header("authorization").removeprefix(scheme).strip().partition(":")
    if not colon or not key:
        raise bad_authorization(request)
    return key, signature


def bad_authorization(request: Request) -> OssError:
    return OssError(
        "InvalidArgument",
        "Authorization header is invalid.",
        ArgumentName="Authorization",
        ArgumentValue=request.header("authorization"),
    )


def check_scope(scope: list[str], date: str, region: str | None, product: str, mark: str) -> None:
    """The parts of a credential behind the key. None is any region."""
    if len(scope) != 4 or scope[3] != mark:
        raise _bad_scope("Credential", scope)
    if scope[0] != date[:8]:
        raise _bad_scope("date", scope)
    if region is not None and scope[1] != region:
        raise _bad_scope("signing region", scope)
    if scope[2] != product:
        raise _bad_scope("signing product", scope)


def _bad_scope(what: str, scope: list[str]) -> OssError:
    message = f"Invalid {what} in Authorization header."
    return OssError("InvalidArgument", message, ArgumentName="Credential", ArgumentValue="/".join(scope))
