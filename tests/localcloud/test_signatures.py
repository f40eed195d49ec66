"""Requests signed the older way, HMAC-SHA1 among the parameters, each part of which a test can spoil."""

import base64
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from alibabacloud_ecs20140526 import models
from alibabacloud_ecs20140526.client import Client
from alibabacloud_tea_openapi.models import Config
from alibabacloud_tea_openapi.utils import Utils

from tests.localcloud.conftest import KEY, SECRET

CODE = "SignatureDoesNotMatch"


def fields(action: str = "DescribeRegions", **changed: str | None) -> dict[str, str]:
    """What every request of this kind says of itself; None leaves one out."""
    said = {
        "Action": action,
        "Version": "2014-05-26",
        "Format": "JSON",
        "AccessKeyId": KEY,
        "SignatureMethod": "HMAC-SHA1",
        "SignatureVersion": "1.0",
        "SignatureNonce": uuid.uuid4().hex,
        "Timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    } | changed
    return {name: value for name, value in said.items() if value is not None}


def signed(said: dict[str, str], method: str = "GET", secret: str = SECRET) -> dict[str, str]:
    return said | {"Signature": Utils.get_rpcsignature(said, method, secret)}


def get(ecs: Any, query: dict[str, str]) -> httpx.Response:
    return httpx.get(f"http://{ecs.endpoint}/", params=query, trust_env=False)


def post(ecs: Any, query: dict[str, str], form: dict[str, str]) -> httpx.Response:
    return httpx.post(f"http://{ecs.endpoint}/", params=query, data=form, trust_env=False)


def refusal(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert set(body) == {"RequestId", "HostId", "Code", "Message", "Recommend"}
    assert response.headers["x-acs-request-id"] == body["RequestId"]
    return response.status_code, body["Code"]


def test_in_the_query(ecs: Any) -> None:
    assert get(ecs, signed(fields(AcceptLanguage="a b+c/é~*!'()"))).json()["Regions"]


def test_in_a_form(ecs: Any) -> None:
    assert post(ecs, {}, signed(fields(), "POST")).json()["Regions"]


def test_partly_in_the_query_and_partly_in_a_form(ecs: Any) -> None:
    everything = signed(fields(AcceptLanguage="zh-CN"), "POST")
    form = {"AcceptLanguage": everything.pop("AcceptLanguage")}
    assert post(ecs, everything, form).json()["Regions"]
    assert refusal(post(ecs, everything, {})) == (400, CODE)


def test_the_older_sdks_also_send_headers_of_the_newer_kind(ecs: Any) -> None:
    headers = {"x-acs-action": "DescribeRegions", "x-acs-version": "2014-05-26"}
    url = f"http://{ecs.endpoint}/"
    assert httpx.get(url, params=signed(fields()), headers=headers, trust_env=False).status_code == 200


def test_the_newer_sdk_signs_the_older_way_when_told_to(ecs: Any) -> None:
    older = Client(
        Config(
            access_key_id=KEY,
            access_key_secret=SECRET,
            endpoint=ecs.endpoint,
            protocol="http",
            region_id="cn-local",
            no_proxy="127.0.0.1",
            signature_algorithm="v2",
        )
    )
    tag = models.CreateDiskRequestTag(key="a b", value="ö+/~")
    order = {"region_id": "cn-local", "zone_id": "cn-local-a", "disk_category": "cloud", "size": 5}
    disk = older.create_disk(models.CreateDiskRequest(**order, tag=[tag])).body.disk_id
    [found] = ecs.wait(ecs.disk, disk, "Available")["Tags"]["Tag"]
    assert (found["TagKey"], found["TagValue"]) == ("a b", "ö+/~")
    older.delete_disk(models.DeleteDiskRequest(disk_id=disk))


def test_the_method_is_signed(ecs: Any) -> None:
    assert refusal(get(ecs, signed(fields(), "POST"))) == (400, CODE)


def test_the_method_of_signing_may_be_left_out(ecs: Any) -> None:
    assert get(ecs, signed(fields(SignatureMethod=None))).status_code == 200


def test_unknown_key(ecs: Any) -> None:
    assert refusal(get(ecs, signed(fields(AccessKeyId="NOBODY")))) == (404, "InvalidAccessKeyId.NotFound")


def test_a_wrong_secret_is_told_by_the_text_that_the_server_expects_to_be_signed(ecs: Any) -> None:
    said = fields(AcceptLanguage="a b")
    response = get(ecs, signed(said, secret="guessed"))
    assert refusal(response) == (400, CODE)
    message, _, text = response.json()["Message"].partition(":")
    assert message == "Specified signature is not matched with our calculation. server string to sign is"
    assert text.startswith("GET&%2F&AcceptLanguage%3Da%2520b%26AccessKeyId%3D")


@pytest.mark.parametrize("spoilt", ["Action", "AcceptLanguage", "SignatureNonce", "SignatureMethod"])
def test_an_altered_parameter(ecs: Any, spoilt: str) -> None:
    query = signed(fields(AcceptLanguage="en"))
    query[spoilt] = {"Action": "DescribeInstanceTypes", "SignatureMethod": "HMAC-SHA1 "}.get(spoilt, "other")
    expected = "InvalidSignatureMethod" if spoilt == "SignatureMethod" else CODE
    assert refusal(get(ecs, query)) == (400, expected)


def test_an_added_parameter(ecs: Any) -> None:
    assert refusal(get(ecs, signed(fields()) | {"AcceptLanguage": "en"})) == (400, CODE)


def test_a_signature_of_other_letters(ecs: Any) -> None:
    assert refusal(get(ecs, fields() | {"Signature": "é"})) == (400, CODE)


@pytest.mark.parametrize("minutes", [-16, 60])
def test_a_date_of_another_time(ecs: Any, minutes: int) -> None:
    """Not as parameters: those of two processes that collect the tests must have one name."""
    date = (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert refusal(get(ecs, signed(fields(Timestamp=date)))) == (400, "InvalidTimeStamp.Expired")


@pytest.mark.parametrize("date", ["2026-01-01 00:00:00", "yesterday"])
def test_a_date_of_another_form(ecs: Any, date: str) -> None:
    assert refusal(get(ecs, signed(fields(Timestamp=date)))) == (400, "InvalidTimeStamp.Format")


def test_a_nonce_works_once(ecs: Any) -> None:
    query = signed(fields())
    assert get(ecs, query).status_code == 200
    assert refusal(get(ecs, query)) == (400, "SignatureNonceUsed")


def test_a_refused_request_uses_up_no_nonce(ecs: Any) -> None:
    said = fields()
    assert refusal(get(ecs, signed(said, secret="guessed"))) == (400, CODE)
    assert get(ecs, signed(said)).status_code == 200


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("SignatureMethod", "HMAC-MD5", "InvalidSignatureMethod"),
        ("SignatureVersion", "2.0", "InvalidSignatureVersion"),
        ("Version", "2013-01-10", "InvalidVersion"),
        ("Format", "YAML", "InvalidParameter.Format"),
    ],
)
def test_what_is_not_offered(ecs: Any, field: str, value: str, code: str) -> None:
    response = get(ecs, signed(fields(**{field: value})))
    assert (response.status_code, code in response.text) == (400, True)


@pytest.mark.parametrize(
    "field", ["Action", "Version", "AccessKeyId", "SignatureNonce", "SignatureVersion", "Timestamp", "Signature"]
)
def test_what_must_be_said(ecs: Any, field: str) -> None:
    query = {name: value for name, value in signed(fields()).items() if name != field}
    assert refusal(get(ecs, query)) == (400, f"Missing{field}")


def test_a_token_compares_what_is_asked_not_how_it_is_signed(ecs: Any) -> None:
    order = {"RegionId": "cn-local", "ZoneId": "cn-local-a", "DiskCategory": "cloud", "ClientToken": uuid.uuid4().hex}
    first, again = (get(ecs, signed(fields("CreateDisk", Size="5", **order))).json() for _ in range(2))
    assert first["DiskId"] == again["DiskId"]
    other = get(ecs, signed(fields("CreateDisk", Size="6", **order)))
    assert refusal(other)[1].startswith("Idempotent")
    ecs.wait(ecs.disk, first["DiskId"], "Available")
    assert get(ecs, signed(fields("DeleteDisk", DiskId=first["DiskId"]))).status_code == 200


def test_user_data_of_32_kb_in_a_query_and_in_a_form(ecs: Any) -> None:
    order = {"RegionId": "cn-local", "ImageId": "m-none", "InstanceType": "ecs.c7.large", "VSwitchId": "vsw-local-a"}
    asked = {**order, "UserData": base64.b64encode(b"#" * 32768).decode()}
    unknown = (404, "InvalidImageId.NotFound")
    assert refusal(get(ecs, signed(fields("RunInstances", **asked)))) == unknown
    assert refusal(post(ecs, {}, signed(fields("RunInstances", **asked), "POST"))) == unknown
