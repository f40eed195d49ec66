"""As whom the backend calls: sessions, roles and the instance's role, by HTTP and HTTPS, and what ends them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from darabonba.core import DaraCore

from storage_backends.alibaba import credentials, ecs
from storage_backends.alibaba.backend import AlibabaBackend
from storage_backends.errors import BackendError, Denied, Expired, InvalidRequest, Unavailable
from storage_backends.registry import open_backend
from tests.localcloud.conftest import KEY, REGION, SECRET, ZONE
from tests.storage_backends.conftest import World
from wavelift.localcloud import accounts
from wavelift.localcloud.accounts import ACCOUNT
from wavelift.localcloud.faults.rules import Rule
from wavelift.localcloud.rpc.formats import timestamp
from wavelift.localcloud.runtimes import metadata

ROLE = f"acs:ram::{ACCOUNT}:role/wavelift"


def opened(world: World, login: str = KEY, password: str = SECRET, **extra: Any) -> AlibabaBackend:
    made = open_backend(
        "alibaba",
        connection_id="my_cloud",
        login=login,
        password=password,
        extra={**world.extra, **extra},
        region=REGION,
        zone=ZONE,
    )
    assert isinstance(made, AlibabaBackend)
    return made


def policy(*actions: str) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": [f"ecs:{action}" for action in actions], "Resource": "*"}
    return {"Version": "1", "Statement": [statement]}


def calls(world: World, action: str) -> list[Any]:
    return [entry for entry in world.cloud.faults.log() if entry.action == action]


@pytest.fixture
def assumed(world: World) -> Iterator[list[str]]:
    """How often STS gave a key: every session it gives."""
    given: list[str] = []
    issue = world.cloud.accounts.issue

    def noted(*args: Any, **kwargs: Any) -> Any:
        made = issue(*args, **kwargs)
        given.append(made.key)
        return made

    world.cloud.accounts.issue = noted  # type: ignore[method-assign]
    yield given
    world.cloud.accounts.issue = issue  # type: ignore[method-assign]


def test_a_session_works_until_it_expires(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    session = world.cloud.accounts.issue(900, policy("Describe*"), ROLE, "wavelift")
    backend = opened(world, session.key, session.secret, security_token=session.token)
    backend.check_access()
    later = SimpleNamespace(time=lambda: time.time() + 901)
    monkeypatch.setattr(accounts, "time", later)
    with pytest.raises(Expired, match=r"InvalidSecurityToken\.Expired") as caught:
        backend.check_access()
    assert isinstance(caught.value, Denied) and caught.value.code == "expired"
    assert "security_token" in caught.value.remedy and session.token not in str(caught.value)


def test_a_session_with_a_token_of_another_key_is_denied(world: World) -> None:
    one, other = (world.cloud.accounts.issue(900, None, ROLE, "wavelift") for _ in range(2))
    backend = opened(world, one.key, one.secret, security_token=other.token)
    with pytest.raises(Denied, match="MismatchWithAccessKey") as caught:
        backend.check_access()
    assert caught.value.code == "denied"


def test_what_the_policy_does_not_allow_is_denied_by_name(world: World) -> None:
    session = world.cloud.accounts.issue(900, policy("DescribeRegions"), ROLE, "wavelift")
    backend = opened(world, session.key, session.secret, security_token=session.token)
    with pytest.raises(Denied, match=r"describe_zones .*Forbidden.RAM") as caught:
        backend.check_access()
    assert "docs/ram-policy.json" in caught.value.remedy


def test_a_role_is_taken_on_once_and_renewed_before_it_ends(
    world: World, assumed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = opened(world, role_arn=ROLE, sts_endpoint=world.cloud.endpoint)
    for _ in range(3):
        backend.check_access()
    assert len(assumed) == 1
    # Ten minutes before the end of the hour.
    monkeypatch.setattr(credentials, "time", SimpleNamespace(time=lambda: time.time() + 3001, **_PARSING))
    backend.check_access()
    assert len(assumed) == 2


def test_a_role_that_ended_early_is_taken_on_again(
    world: World, assumed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = opened(world, role_arn=ROLE, sts_endpoint=world.cloud.endpoint)
    backend.check_access()
    shift = [3601.0]
    monkeypatch.setattr(accounts, "time", SimpleNamespace(time=lambda: time.time() + shift[0]))
    backend.check_access()
    assert len(assumed) == 2


def test_many_threads_take_on_a_role_once(world: World, assumed: list[str]) -> None:
    backend = opened(world, role_arn=ROLE, sts_endpoint=world.cloud.endpoint)
    threads = [threading.Thread(target=backend.check_access) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(assumed) == 1


def test_a_session_takes_on_a_role_only_if_it_may(world: World) -> None:
    session = world.cloud.accounts.issue(900, policy("Describe*"), ROLE, "wavelift")
    backend = opened(
        world,
        session.key,
        session.secret,
        security_token=session.token,
        role_arn=ROLE,
        sts_endpoint=world.cloud.endpoint,
    )
    with pytest.raises(Denied, match=r"AssumeRole at .* NoPermission"):
        backend.check_access()


@pytest.mark.parametrize("fault", ["throttle", "unavailable", "bad-gateway", "drop-reply"])
def test_a_bad_moment_of_sts_is_waited_out(world: World, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(ecs, "_FIRST_PAUSE_SECONDS", 0.02)
    rule = Rule.model_validate({"service": "sts", "fault": {"kind": fault}, "times": 2})
    (added,) = world.cloud.faults.add([rule])
    try:
        opened(world, role_arn=ROLE, sts_endpoint=world.cloud.endpoint).check_access()
        assert world.cloud.faults.counter(added.id).injected == 2
    finally:
        world.cloud.faults.reset()


def test_sts_that_does_not_answer_is_unavailable(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecs, "_RETRY_FOR_SECONDS", 0.2)
    with pytest.raises(Unavailable, match=r"127.0.0.1:1 did not carry out AssumeRole"):
        opened(world, role_arn=ROLE, sts_endpoint="127.0.0.1:1").check_access()


_PARSING = {"strptime": time.strptime}


class Metadata(ThreadingHTTPServer):
    """The metadata service of an instance with a role, as a proxy on the way to 100.100.100.200 sees it."""

    def __init__(self, world: World, role: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.world, self.role = world, role
        self.asked: list[str] = []

    def values(self) -> dict[str, str]:
        session = self.world.cloud.accounts.issue(3600, None, ROLE, "i-1")
        key = {
            "Code": "Success",
            "AccessKeyId": session.key,
            "AccessKeySecret": session.secret,
            "SecurityToken": session.token,
            "Expiration": timestamp(session.expires),
        }
        return {f"meta-data/ram/security-credentials/{self.role}": json.dumps(key)}


class _Answer(BaseHTTPRequestHandler):
    server: Metadata

    def do_GET(self) -> None:
        way = urlsplit(self.path)
        assert way.netloc == "100.100.100.200"
        self.server.asked.append(way.path)
        text = metadata.answer(self.server.values(), way.path)
        self.send_response(200 if text is not None else 404)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def do_POST(self) -> None:
        """Everything else is passed on, as a proxy does."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        with httpx.Client(trust_env=False) as client:
            answer = client.post(self.path, headers=dict(self.headers))
        self.send_response(answer.status_code)
        self.send_header("content-length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def do_PUT(self) -> None:
        self.send_response(404)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""


@pytest.fixture
def instance(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    service = Metadata(world, "wavelift-orchestrator")
    thread = threading.Thread(target=service.serve_forever)
    thread.start()
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{service.server_port}")
    yield service
    service.shutdown()
    thread.join()
    service.server_close()


def test_on_an_instance_its_role_is_the_key(world: World, instance: Metadata) -> None:
    backend = opened(world, "", "", instance_role=instance.role)
    backend.check_access()
    backend.check_access()
    assert instance.asked == [f"/latest/meta-data/ram/security-credentials/{instance.role}"]


def test_the_instances_role_may_take_on_another(world: World, instance: Metadata, assumed: list[str]) -> None:
    opened(world, "", "", instance_role=instance.role, role_arn=ROLE, sts_endpoint=world.cloud.endpoint).check_access()
    # The instance's own, and the role's.
    assert len(assumed) == 2


def test_an_instance_without_that_role_is_told(world: World, instance: Metadata) -> None:
    with pytest.raises(Unavailable, match="gave no key of the instance's RAM role other") as caught:
        opened(world, "", "", instance_role="other").check_access()
    assert "access key" in caught.value.remedy


def test_a_dedicated_cloud_is_reached_by_its_own_authority(world: World) -> None:
    extra = {"endpoint": world.cloud.tls_endpoint, "protocol": "https"}
    opened(world, **extra, ca_file=str(world.cloud.oss_ca)).check_access()
    opened(
        world, **extra, ca_file=str(world.cloud.oss_ca), role_arn=ROLE, sts_endpoint=world.cloud.tls_endpoint
    ).check_access()


def test_an_authority_that_is_not_known_is_not_trusted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # The SDK trusts for the life of a process what it has trusted once at the same host and port.
    monkeypatch.setattr(DaraCore, "_sessions", {})
    with pytest.raises(Denied, match="CERTIFICATE_VERIFY_FAILED") as caught:
        opened(world, endpoint=world.cloud.tls_endpoint, protocol="https").check_access()
    assert "ca_file" in caught.value.remedy


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"protocol": "ftp"}, "protocol .* is 'ftp', neither https nor http"),
        ({"endpoint": "https://ecs.example.com"}, "endpoint .*, not a host"),
        ({"sts_endpoint": "sts.example.com/x"}, "sts_endpoint .*, not a host"),
        ({"ca_file": "/nowhere/ca.pem"}, "ca_file .* is '/nowhere/ca.pem', not a readable PEM file"),
        ({"role_arn": "wavelift"}, "role_arn .* is 'wavelift', not of the form acs:ram::"),
        ({"role_arn": ROLE}, "has no sts_endpoint"),
        ({"instance_role": "wavelift"}, "both an access key and instance_role"),
    ],
)
def test_a_wrong_field_is_named_with_the_connection(world: World, extra: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        opened(world, **extra)
    assert "my_cloud" in str(caught.value) and isinstance(caught.value, BackendError)


def test_a_file_without_certificates_is_no_ca_file(world: World, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(InvalidRequest, match="not a readable PEM file"):
        opened(world, ca_file=str(tmp_path / "ca.pem"))
