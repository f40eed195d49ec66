import base64
import hashlib
import http.client
import re
import time
import uuid
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from alibabacloud_tea_openapi.exceptions import ClientException
from alibabacloud_tea_openapi.utils import Utils

REGIONS = "DescribeRegions"


def send(ecs: Any, action: str, query: dict[str, str] | None = None, **changes: Any) -> httpx.Response:
    """A request signed by the SDK's own function, each part of which a test can spoil."""
    query = query or {}
    headers = {
        "host": ecs.endpoint,
        "x-acs-action": action,
        "x-acs-version": changes.get("version", "2014-05-26"),
        "x-acs-date": changes.get("said_date") or changes.get("date", datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": changes.get("nonce", uuid.uuid4().hex),
        "x-acs-content-sha256": hashlib.sha256(b"").hexdigest(),
    }
    signed = SimpleNamespace(pathname="/", query=query, headers=headers, method="POST")
    authorization = Utils.get_authorization(
        signed, "ACS3-HMAC-SHA256", headers["x-acs-content-sha256"], "LOCALTEST", "a secret for tests"
    )
    headers["Authorization"] = changes.get("authorization", authorization)
    headers |= {"accept": changes.get("accept", "*/*")} | changes.get("added", {})
    return httpx.post(
        f"http://{ecs.endpoint}/",
        params=changes.get("sent", query),
        headers=headers,
        content=changes.get("body", b""),
        trust_env=False,
    )


def check_refused(response: httpx.Response, status: int, code: str) -> None:
    body = response.json()
    assert (response.status_code, body["Code"]) == (status, code)
    assert set(body) == {"RequestId", "HostId", "Code", "Message", "Recommend"}


def test_the_sdk_is_understood(ecs: Any) -> None:
    assert [r["RegionId"] for r in ecs.call("describe_regions")["Regions"]["Region"]] == ["cn-local"]


def test_the_error_body_reaches_the_sdk(ecs: Any) -> None:
    with pytest.raises(ClientException) as caught:
        ecs.call("detach_disk", disk_id="d-none", instance_id="i-none")
    assert caught.value.code == "InvalidDiskId.NotFound"
    assert caught.value.status_code == 404
    assert caught.value.request_id == caught.value.data["RequestId"]


def test_unknown_key(ecs: Any) -> None:
    stranger = type(ecs)(ecs.endpoint, key="SOMEBODY")
    with stranger.refused("InvalidAccessKeyId.NotFound", 404):
        stranger.call("describe_regions")


def test_wrong_secret(ecs: Any) -> None:
    stranger = type(ecs)(ecs.endpoint, secret="guessed")
    with stranger.refused("SignatureDoesNotMatch", 400):
        stranger.call("describe_regions")


def test_a_good_request_passes_by_hand(ecs: Any) -> None:
    assert send(ecs, REGIONS, {"AcceptLanguage": "a b+c/é~*"}).status_code == 200


@pytest.mark.parametrize("minutes", [-16, 16])
def test_stale_date(ecs: Any, minutes: int) -> None:
    response = send(ecs, REGIONS, date=datetime.now(UTC) + timedelta(minutes=minutes))
    check_refused(response, 400, "InvalidTimeStamp.Expired")


def test_nonce_works_once(ecs: Any) -> None:
    assert send(ecs, REGIONS, nonce="once").status_code == 200
    check_refused(send(ecs, REGIONS, nonce="once"), 400, "SignatureNonceUsed")


def test_changed_parameter(ecs: Any) -> None:
    response = send(ecs, REGIONS, {"AcceptLanguage": "en"}, sent={"AcceptLanguage": "zh"})
    check_refused(response, 400, "SignatureDoesNotMatch")


def test_changed_body(ecs: Any) -> None:
    check_refused(send(ecs, REGIONS, body=b"more"), 400, "SignatureDoesNotMatch")


def test_not_signed(ecs: Any) -> None:
    check_refused(send(ecs, REGIONS, authorization=""), 400, "MissingAccessKeyId")
    check_refused(send(ecs, REGIONS, authorization="Basic eA=="), 400, "IncompleteSignature")


def test_a_wrong_signature_is_told_by_what_the_server_expects_to_be_signed(ecs: Any) -> None:
    message = send(ecs, REGIONS, {"AcceptLanguage": "en"}, sent={"AcceptLanguage": "zh"}).json()["Message"]
    text = re.fullmatch(
        r"Specified signature does not match our calculation\. server StringToSign is \[(.*)\]"
        r" server CanonicalRequest is \[(.*)\]",
        message,
        re.DOTALL,
    )
    assert text is not None
    assert text[1] == f"ACS3-HMAC-SHA256\n{hashlib.sha256(text[2].encode()).hexdigest()}"
    assert text[2].startswith(f"POST\n/\nAcceptLanguage=zh\nhost:{ecs.endpoint}\nx-acs-action:{REGIONS}\n")


def test_other_ways_to_sign(ecs: Any) -> None:
    line = "ACS3-RSA-SHA256 Credential=LOCALTEST,SignedHeaders=host,Signature=00"
    check_refused(send(ecs, REGIONS, authorization=line), 400, "InvalidSignatureMethod")


def test_a_header_that_says_something_must_be_signed(ecs: Any) -> None:
    check_refused(send(ecs, REGIONS, added={"x-acs-security-token": "t"}), 400, "IncompleteSignature")


def test_malformed_date(ecs: Any) -> None:
    check_refused(send(ecs, REGIONS, said_date="Mon, 01 Jan 2026 00:00:00 GMT"), 400, "InvalidTimeStamp.Format")


def test_wrong_version(ecs: Any) -> None:
    check_refused(send(ecs, REGIONS, version="2013-01-10"), 400, "InvalidVersion")
    check_refused(send(ecs, REGIONS, version=""), 400, "MissingVersion")


def test_other_places_and_methods(ecs: Any) -> None:
    url, headers = f"http://{ecs.endpoint}", {"x-acs-action": REGIONS, "x-acs-version": "2014-05-26"}
    with httpx.Client(trust_env=False, headers=headers) as client:
        check_refused(client.post(f"{url}/instances"), 404, "InvalidAction.NotFound")
        check_refused(client.put(url), 400, "UnsupportedHTTPMethod")


def test_every_header_that_matters_must_be_signed(ecs: Any) -> None:
    line = "ACS3-HMAC-SHA256 Credential=LOCALTEST,SignedHeaders=host,Signature=00"
    check_refused(send(ecs, REGIONS, authorization=line), 400, "IncompleteSignature")


def test_unknown_action(ecs: Any) -> None:
    check_refused(send(ecs, "MakeCoffee"), 404, "InvalidAction.NotFound")


def test_an_action_that_only_the_real_cloud_has_is_logged(ecs: Any, caplog: pytest.LogCaptureFixture) -> None:
    check_refused(send(ecs, "PurchaseReservedInstancesOffering"), 404, "InvalidAction.NotFound")
    assert "ECS has the action PurchaseReservedInstancesOffering" in caplog.text


def test_missing_parameter(ecs: Any) -> None:
    check_refused(send(ecs, "DescribeDisks"), 400, "MissingParameter")
    check_refused(send(ecs, "DescribeDisks", {"RegionId": ""}), 400, "MissingParameter")


@pytest.mark.parametrize(
    "field", [{"DiskIds": "d-1"}, {"DiskIds": '{"a": 1}'}, {"PageSize": "101"}, {"PageNumber": "x"}]
)
def test_malformed_parameter(ecs: Any, field: dict[str, str]) -> None:
    check_refused(send(ecs, "DescribeDisks", {"RegionId": "cn-local"} | field), 400, "InvalidParameter")


def test_malformed_flag(ecs: Any) -> None:
    query = {"SnapshotId": "s-1", "Force": "maybe"}
    check_refused(send(ecs, "DeleteSnapshot", query), 400, "InvalidParameter")


def test_unknown_region(ecs: Any) -> None:
    check_refused(send(ecs, "DescribeDisks", {"RegionId": "cn-moon"}), 404, "InvalidRegionId.NotFound")


def test_user_data_of_32_kb_fits_and_more_does_not(ecs: Any) -> None:
    def order(size: int) -> None:
        ecs.run("host-linux", "#" * size, dry_run=True)

    with ecs.refused("DryRunOperation", 400):
        order(32 * 1024)
    with ecs.refused("InvalidUserData.SizeExceeded", 403):
        order(32 * 1024 + 1)
    with ecs.refused("InvalidUserData.Base64FormatInvalid", 400):
        ecs.run("host-linux", user_data="not base64!", dry_run=True)


def test_user_data_comes_out_as_it_went_in(ecs: Any) -> None:
    text = base64.b64encode(bytes(range(256)) * 2).decode()
    host = ecs.run("host-linux", f"echo 'a+b c/d=é' {text}")
    ecs.wait(ecs.instance, host, "Stopped")
    assert f"a+b c/d=é {text}" in ecs.console(host)
    ecs.release(host)


def test_a_reply_does_not_wait_for_an_acknowledgement(ecs: Any) -> None:
    """With Nagle's algorithm every reply takes 40 ms, also the quickest."""

    def one(client: httpx.Client) -> float:
        began = time.perf_counter()
        client.get(f"http://{ecs.endpoint}/")
        return time.perf_counter() - began

    with httpx.Client(trust_env=False) as client:
        assert min(one(client) for _ in range(20)) < 0.02


def test_a_body_that_nothing_can_need_is_not_waited_for(ecs: Any) -> None:
    host, _, port = ecs.endpoint.partition(":")
    line = http.client.HTTPConnection(host, int(port), timeout=20)
    line.putrequest("POST", "/?Action=DescribeRegions&Version=2014-05-26&Format=JSON")
    line.putheader("Content-Length", str(400 << 20))
    line.endheaders()
    line.send(bytes((1 << 20) + 1))
    response = line.getresponse()
    error = response.read().decode()
    line.close()
    assert response.status == 413 and "RequestEntityTooLarge" in error
