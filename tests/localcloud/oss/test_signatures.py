"""Requests signed by the SDKs' own functions, each part of which a test can spoil."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import Any
from unittest.mock import patch
from urllib.parse import quote
from xml.etree import ElementTree

import alibabacloud_oss_v2 as oss_v2
import httpx
import pytest
from alibabacloud_oss_v2.signer.v1 import SignerV1
from alibabacloud_oss_v2.signer.v4 import SignerV4
from alibabacloud_oss_v2.types import SigningContext
from botocore.auth import HmacV1Auth, HmacV1QueryAuth, S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

KEY, SECRET, REGION = "LOCALTEST", "a secret for tests", "cn-local"
OBJECT = "folder/a b+c é~'(*).txt"
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Order:
    """What is to be signed, and by whom."""

    endpoint: str
    bucket: str
    method: str = "GET"
    key: str = KEY
    secret: str = SECRET
    token: str = ""
    moment: datetime | None = None
    region: str = REGION
    lifetime: timedelta = HOUR

    @property
    def url(self) -> str:
        return f"http://{self.endpoint}/{self.bucket}/{quote(OBJECT, safe='/~')}?response-content-language=a%20b%2Fc"

    @property
    def now(self) -> datetime:
        return self.moment or datetime.now(UTC)


Signed = tuple[str, dict[str, str]]


def by_oss(signer: Any, in_url: bool) -> Callable[[Order], Signed]:
    def sign(order: Order) -> Signed:
        context = SigningContext(
            product="oss",
            region=order.region,
            bucket=order.bucket,
            key=OBJECT,
            request=oss_v2.types.HttpRequest(order.method, order.url),
            credentials=oss_v2.credentials.Credentials(order.key, order.secret, order.token or None),
            signing_time=order.now,
        )
        context.auth_method_query = in_url
        context.expiration_time = order.now + order.lifetime
        signer.sign(context)
        return context.request.url, dict(context.request.headers)

    return sign


def by_aws(in_url: bool) -> Callable[[Order], Signed]:
    def sign(order: Order) -> Signed:
        request = AWSRequest(order.method, order.url, headers={} if in_url else {"x-amz-meta-a": "b"})
        request.context["payload_signing_enabled"] = False
        found = Credentials(order.key, order.secret, order.token or None)
        with patch("botocore.auth.get_current_datetime", lambda: order.now.replace(tzinfo=None)):
            if in_url:
                S3SigV4QueryAuth(found, "s3", order.region, int(order.lifetime.total_seconds())).add_auth(request)
            else:
                S3SigV4Auth(found, "s3", order.region).add_auth(request)
        return request.url, dict(request.headers.items())

    return sign


def by_old_aws(in_url: bool) -> Callable[[Order], Signed]:
    def sign(order: Order) -> Signed:
        request = AWSRequest(order.method, order.url, headers={} if in_url else {"x-amz-meta-a": "b"})
        found = Credentials(order.key, order.secret, order.token or None)
        moment = order.now.timestamp()
        with (
            patch("botocore.auth.formatdate", lambda usegmt: formatdate(moment, usegmt=usegmt)),
            patch("botocore.auth.time.time", lambda: moment),
        ):
            if in_url:
                HmacV1QueryAuth(found, int(order.lifetime.total_seconds())).add_auth(request)
            else:
                HmacV1Auth(found).add_auth(request)
        return request.url, dict(request.headers.items())

    return sign


METHODS = {
    "OSS V1 header": by_oss(SignerV1(), False),
    "OSS V1 URL": by_oss(SignerV1(), True),
    "OSS V4 header": by_oss(SignerV4(), False),
    "OSS V4 URL": by_oss(SignerV4(), True),
    "AWS V4 header": by_aws(False),
    "AWS V4 URL": by_aws(True),
    "AWS V2 header": by_old_aws(False),
    "AWS V2 URL": by_old_aws(True),
}
HEADERS = [name for name in METHODS if name.endswith("header")]
FAR = ["Fri, 31 Dec 9999 23:59:59 -2359", f"Fri, 31 Dec {'9' * 20} 23:59:59 GMT"]
URLS = [name for name in METHODS if name.endswith("URL")]


@pytest.fixture
def order(oss: Any, name: str) -> Order:
    oss.bucket(name).put_object(OBJECT, b"content")
    return Order(oss.endpoint, name)


def send(signed: Signed, method: str = "GET") -> httpx.Response:
    url, headers = signed
    # Without `verify` it reads every authority there is, for plain HTTP too: 20 ms a time.
    return httpx.request(method, url, headers=headers, trust_env=False, verify=False)


def check_refused(response: httpx.Response, status: int, code: str) -> dict[str, str]:
    error = {element.tag: element.text or "" for element in ElementTree.fromstring(response.content)}
    assert (response.status_code, error["Code"]) == (status, code), response.text
    assert error["RequestId"] == response.headers["x-oss-request-id"]
    assert error["HostId"] and error["Message"]
    return error


@pytest.mark.parametrize("method", METHODS)
def test_a_good_one(order: Order, method: str) -> None:
    response = send(METHODS[method](order))
    assert (response.status_code, response.content) == (200, b"content"), response.text
    assert response.headers["content-language"] == "a b/c"


@pytest.mark.parametrize("method", METHODS)
def test_unknown_key(order: Order, method: str) -> None:
    response = send(METHODS[method](replace(order, key="SOMEBODY")))
    assert check_refused(response, 403, "InvalidAccessKeyId")["OSSAccessKeyId"] == "SOMEBODY"


@pytest.mark.parametrize("method", METHODS)
def test_wrong_secret(order: Order, method: str) -> None:
    response = send(METHODS[method](replace(order, secret="guessed")))
    error = check_refused(response, 403, "SignatureDoesNotMatch")
    assert bytes.fromhex(error["StringToSignBytes"]).decode() == error["StringToSign"]
    assert error["SignatureProvided"] and error["OSSAccessKeyId"] == KEY
    assert ("CanonicalRequest" in error) == (" V4 " in method)


@pytest.mark.parametrize("method", METHODS)
def test_another_verb(order: Order, method: str) -> None:
    check_refused(send(METHODS[method](order), "DELETE"), 403, "SignatureDoesNotMatch")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("part", ["folder", "a%20b%2Fc"])
def test_altered_url(order: Order, method: str, part: str) -> None:
    url, headers = METHODS[method](order)
    assert url.count(part) == 1
    check_refused(send((url.replace(part, "other"), headers)), 403, "SignatureDoesNotMatch")


@pytest.mark.parametrize("method", HEADERS)
def test_altered_header(order: Order, method: str) -> None:
    special = "x-amz-meta-a" if "AWS" in method else "x-oss-meta-a"
    url, headers = METHODS[method](order)
    check_refused(send((url, headers | {special: "c"})), 403, "SignatureDoesNotMatch")


def test_every_amz_header_must_be_signed(order: Order) -> None:
    url, headers = METHODS["AWS V4 header"](order)
    check_refused(send((url, headers | {"x-amz-acl": "public-read"})), 403, "AccessDenied")


@pytest.mark.parametrize("method", HEADERS)
@pytest.mark.parametrize("minutes", [-16, 16])
def test_stale(order: Order, method: str, minutes: int) -> None:
    moment = datetime.now(UTC) + timedelta(minutes=minutes)
    error = check_refused(send(METHODS[method](replace(order, moment=moment))), 403, "RequestTimeTooSkewed")
    assert error["MaxAllowedSkewMilliseconds"] == "900000"
    assert error["RequestTime"] == moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


@pytest.mark.parametrize("method", URLS)
def test_expired(order: Order, method: str) -> None:
    response = send(METHODS[method](replace(order, moment=datetime.now(UTC) - 2 * HOUR)))
    error = check_refused(response, 403, "AccessDenied")
    assert error["Message"] == "Request has expired."
    assert error["Expires"] < error["ServerTime"]


@pytest.mark.parametrize("method", ["OSS V4 URL", "AWS V4 URL"])
def test_url_of_the_future_or_for_too_long(order: Order, method: str) -> None:
    later = replace(order, moment=datetime.now(UTC) + HOUR)
    check_refused(send(METHODS[method](later)), 403, "AccessDenied")
    longer = replace(order, lifetime=timedelta(days=7, seconds=2))
    check_refused(send(METHODS[method](longer)), 400, "InvalidArgument")


@pytest.mark.parametrize("seconds", ["0", f"{'0' * 9}86400000", "9" * 5000, "-1", "1.5"])
@pytest.mark.parametrize("method", ["OSS V4 URL", "AWS V4 URL"])
def test_a_url_for_a_time_that_is_none(order: Order, method: str, seconds: str) -> None:
    url, headers = METHODS[method](order)
    assert url.count("xpires=3600") == 1
    check_refused(send((url.replace("xpires=3600", f"xpires={seconds}"), headers)), 400, "InvalidArgument")


@pytest.mark.parametrize("method", METHODS)
def test_another_region(order: Order, method: str) -> None:
    response = send(METHODS[method](replace(order, region="cn-moon")))
    if method.startswith("OSS V4"):
        error = check_refused(response, 400, "InvalidArgument")
        assert error["Message"] == "Invalid signing region in Authorization header."
    else:
        assert response.status_code == 200


@pytest.mark.parametrize("method", METHODS)
def test_temporary_keys(oss: Any, order: Order, method: str) -> None:
    good, other, late = oss.accounts.issue(60), oss.accounts.issue(60), oss.accounts.issue(-1)

    def attempt(key: str, secret: str, token: str) -> httpx.Response:
        return send(METHODS[method](replace(order, key=key, secret=secret, token=token)))

    assert attempt(good.key, good.secret, good.token).content == b"content"
    check_refused(attempt(KEY, SECRET, good.token), 403, "InvalidAccessKeyId")
    check_refused(attempt(good.key, good.secret, ""), 403, "InvalidAccessKeyId")
    check_refused(attempt(good.key, good.secret, other.token), 403, "InvalidSecurityToken")
    check_refused(attempt(good.key, good.secret, good.token[:-1] + "x"), 403, "InvalidSecurityToken")
    check_refused(attempt(good.key, "guessed", good.token), 403, "SignatureDoesNotMatch")
    check_refused(attempt(late.key, late.secret, late.token), 403, "SecurityTokenExpired")


@pytest.mark.parametrize(
    "authorization",
    ["OSS nonsense", "OSS :x", "OSS4-HMAC-SHA256 Signature=1", "AWS4-HMAC-SHA256 Credential=a", "Basic eA=="],
)
def test_malformed_authorization(order: Order, authorization: str) -> None:
    check_refused(send((order.url, {"Authorization": authorization})), 400, "InvalidArgument")


@pytest.mark.parametrize("date", [{}, {"Date": "yesterday"}, {"x-oss-date": "2026"}])
def test_a_date_is_needed(order: Order, date: dict[str, str]) -> None:
    check_refused(send((order.url, {"Authorization": f"OSS {KEY}:x"} | date)), 403, "AccessDenied")
    scope = f"{KEY}/20260101/{REGION}/oss/aliyun_v4_request"
    header = {"Authorization": f"OSS4-HMAC-SHA256 Credential={scope},Signature=00"}
    check_refused(send((order.url, header | date)), 403, "AccessDenied")


@pytest.mark.parametrize("scheme", ["OSS", "AWS"])
@pytest.mark.parametrize("date", FAR)
def test_a_date_that_no_clock_shows(order: Order, scheme: str, date: str) -> None:
    check_refused(send((order.url, {"Authorization": f"{scheme} {KEY}:x", "Date": date})), 403, "AccessDenied")


@pytest.mark.parametrize("method", ["OSS V4 URL", "AWS V4 URL"])
def test_names_of_headers_in_another_script(order: Order, method: str) -> None:
    url, headers = METHODS[method](order)
    name = "x-oss-additional-headers" if method.startswith("OSS") else "X-Amz-SignedHeaders"
    altered = str(httpx.URL(url).copy_set_param(name, "host;\u62a5"))
    check_refused(send((altered, headers)), 400, "InvalidArgument")


def test_nobody(order: Order) -> None:
    check_refused(send((order.url, {})), 403, "AccessDenied")
