"""The gateway without a socket: whatever comes in, a refusal goes out that a client can read."""

import json
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.localcloud.conftest import KEY, SECRET
from tests.localcloud.test_signatures import fields, signed
from wavelift.localcloud.accounts import Accounts
from wavelift.localcloud.faults.calls import Faults
from wavelift.localcloud.rpc.gateway import Answer, Gateway
from wavelift.localcloud.rpc.request import FORM, Request
from wavelift.localcloud.rpc.signatures import Authenticator
from wavelift.localcloud.sts import Sts

SHA = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
NAMES = ["Action", "Version", "Format", "AccessKeyId", "Signature", "SignatureMethod", "SignatureNonce", "Timestamp"]
HEADERS = ["authorization", "accept", "host", "content-type", "x-acs-action", "x-acs-version", "x-acs-security-token"]
NEWER = {
    "x-acs-action": "GetCallerIdentity",
    "x-acs-version": "2015-04-01",
    "x-acs-date": "2026-01-01T00:00:00Z",
    "x-acs-signature-nonce": "n",
    "x-acs-content-sha256": SHA,
    "host": "here",
}
LINE = (
    f"ACS3-HMAC-SHA256 Credential={KEY},SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;"
    "x-acs-signature-nonce;x-acs-version,Signature="
)
words = st.text(max_size=12) | st.sampled_from(["JSON", "XML", KEY, "2015-04-01", "AssumeRole", "STS.x", FORM, LINE])


def gateway() -> Gateway:
    accounts = Accounts({KEY: SECRET}, b"seal")
    return Gateway(Authenticator(accounts), {"2015-04-01": Sts(accounts)}, Faults([]))


def code_of(answer: Answer) -> str | None:
    if answer.media.startswith("text/xml"):
        return ElementTree.fromstring(answer.body).findtext("Code")
    code: str | None = json.loads(answer.body).get("Code")
    return code


@settings(max_examples=300, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST"]),
    said=st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), words, max_size=8),
    headers=st.dictionaries(st.sampled_from(HEADERS), words.map(lambda text: text.replace("\n", " ")), max_size=5),
    newer=st.booleans(),
    body=st.binary(max_size=30),
)
def test_nonsense_is_refused(
    method: str, said: dict[str, str], headers: dict[str, str], newer: bool, body: bytes
) -> None:
    query = urlencode(said, errors="surrogatepass")
    answer = gateway().answer(Request(method, "/", query, (NEWER if newer else {}) | headers, body))
    assert 400 <= answer.status < 500
    assert code_of(answer)


@settings(max_examples=200, deadline=None)
@given(parameters=st.dictionaries(st.sampled_from(["Policy", "RoleArn", "DurationSeconds", "X"]), st.text(max_size=30)))
def test_nonsense_that_is_well_signed_is_refused_by_the_action(parameters: dict[str, str]) -> None:
    known: dict[str, Any] = {"RoleArn": "acs:ram::1:role/r", "RoleSessionName": "me", "Policy": "{"} | parameters
    query = urlencode(signed(fields("AssumeRole", Version="2015-04-01", **known)))
    answer = gateway().answer(Request("GET", "/", query, {}, b""))
    code = code_of(answer)
    if answer.status == 200:
        assert code is None and not known["Policy"]
    else:
        assert answer.status == 400 and code is not None
        assert code.startswith(("InvalidParameter.", "MissingParameter"))


def test_what_is_carried_in_a_form_may_be_large() -> None:
    known = {"RoleArn": "acs:ram::1:role/r", "RoleSessionName": "me", "Padding": "+ é" * 20000}
    form = urlencode(signed(fields("AssumeRole", Version="2015-04-01", **known), "POST")).encode()
    assert gateway().answer(Request("POST", "/", "", {"content-type": f"{FORM}; charset=utf-8"}, form)).status == 200
