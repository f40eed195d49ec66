"""What a person can get wrong, and what a network does: credentials, region, target, lost and odd answers."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from storage_backends.alibaba import ecs
from storage_backends.alibaba.backend import AlibabaBackend
from storage_backends.alibaba.gateway_boot import gateway_identity, gateway_key, gateway_user_data
from storage_backends.alibaba.settings import AlibabaSettings
from storage_backends.base import InstanceSpec, Labels, Resource, Role
from storage_backends.errors import Conflict, Denied, InvalidRequest, NotFound, Unavailable
from storage_backends.registry import UnknownBackend, open_backend
from tests.localcloud.conftest import KEY, SECRET
from tests.storage_backends.conftest import (
    GATEWAY_SECRET,
    SMALL,
    World,
)
from wavelift.service import tokens
from wavelift.service.errors import ForbiddenRequest, UnauthorizedRequest

Run = Callable[..., Labels]
TARGET = InstanceSpec("", "ecs.g7.large", "vsw-local-a", "sg-local-default", "cloud_essd", 40)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecs, "_RETRY_FOR_SECONDS", 1.0)
    monkeypatch.setattr(ecs, "_FIRST_PAUSE_SECONDS", 0.05)


def test_right_settings_give_access(backend: AlibabaBackend) -> None:
    backend.check_access()
    assert backend.check_target(TARGET) == []
    assert backend.capabilities().bootable and backend.capabilities().poll_seconds == 0.2


@pytest.mark.parametrize(
    ("login", "password", "code"),
    [(KEY, "not the secret", "SignatureDoesNotMatch"), ("nobody", SECRET, "InvalidAccessKeyId.NotFound")],
)
def test_a_wrong_key_is_denied_with_code_and_remedy(world: World, login: str, password: str, code: str) -> None:
    backend = open_backend(
        "alibaba",
        connection_id="c",
        login=login,
        password=password,
        extra=world.extra,
        region="cn-local",
        zone="cn-local-a",
    )
    with pytest.raises(Denied) as caught:
        backend.check_access()
    assert caught.value.code == "denied" and code in caught.value.message
    assert world.cloud.endpoint in caught.value.message
    assert "Check the access key in the Airflow connection" in caught.value.remedy
    assert password not in str(caught.value)


@pytest.mark.usefixtures("impatient")
def test_nothing_at_the_endpoint_is_unavailable_after_a_while(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(Unavailable, match=f"{endpoint} did not carry out describe_regions within 1 s") as caught:
        world.backend(endpoint=endpoint).check_access()
    assert "Check endpoint and network" in caught.value.remedy


def test_an_unknown_region_or_zone_names_those_that_exist(world: World) -> None:
    with pytest.raises(NotFound, match="Region eu-central-1 is not offered") as caught:
        world.backend(region="eu-central-1").check_access()
    assert caught.value.remedy == "Set cloud.region to one of: cn-local."
    with pytest.raises(NotFound, match="Zone cn-local-z is not in region cn-local") as caught:
        world.backend(zone="cn-local-z").check_access()
    assert caught.value.remedy == "Set cloud.zone to one of: cn-local-a, cn-local-b."


def test_every_reason_against_a_target_comes_at_once(world: World) -> None:
    spec = InstanceSpec("", "ecs.none.large", "vsw-none", "sg-none", "cloud_essd", 40)
    wrong = world.backend(
        gateway_image="m-none", gateway_instance_type="ecs.gone.large", gateway_security_group="no such group"
    )
    reasons = wrong.check_target(spec)
    named = ("vsw-none", "sg-none", "no such group", "ecs.none.large", "ecs.gone.large", "m-none")
    assert len(reasons) == len(named)
    for reason, name in zip(reasons, named, strict=True):
        assert f" {name} does not exist in cn-local" in reason


def test_a_vswitch_of_another_zone_is_a_reason(backend: AlibabaBackend) -> None:
    elsewhere = InstanceSpec("", "ecs.g7.large", "vsw-local-b", "sg-local-default", "cloud_essd", 40)
    (reason,) = backend.check_target(elsewhere)
    assert "vsw-local-b is in zone cn-local-b, the volumes will be in cn-local-a" in reason


def test_a_sinks_token_opens_one_volume_of_one_run(backend: AlibabaBackend, gateway: Resource, run: Run) -> None:
    labels = run()
    volume = backend.create_volume(run(Role.REPLICA, "data"), SMALL).id
    backend.attach(volume, gateway.id)
    sink = backend.sink(volume, run(Role.REPLICA, "data"), 3)
    assert (sink.kind, sink.volume, sink.generation) == ("gateway", volume, 3)
    access = backend.gateway_access(gateway, labels)
    assert sink.url == access.url == f"https://{gateway.address}:8443"
    pool = gateway.tag("run")
    assert sink.fingerprint == access.fingerprint == gateway_identity(GATEWAY_SECRET, pool)[1]
    assert sink.fingerprint != gateway_identity(GATEWAY_SECRET, "another")[1]
    assert access.token not in repr(access)
    key = gateway_key(GATEWAY_SECRET, pool)
    claims = tokens.verify(key, sink.token, scope="write")
    assert claims.migration == f"{labels.wave}-{labels.migration}-{labels.run}"
    assert claims.volumes == {volume} and time.time() < claims.expires < time.time() + 24 * 3600
    with pytest.raises(ForbiddenRequest):
        claims.require_volume("d-two")
    with pytest.raises(ForbiddenRequest):
        tokens.verify(key, sink.token, scope="control")
    with pytest.raises(UnauthorizedRequest):
        tokens.verify(gateway_key(GATEWAY_SECRET, "another"), sink.token)
    assert tokens.verify(key, access.token).scope == "control"
    backend.detach(volume)


def test_an_instance_of_the_gateway_learns_its_own_key_only(world: World, gateway: Resource) -> None:
    script = (world.state / "instances" / gateway.id / "user-data").read_text()
    assert gateway_key(GATEWAY_SECRET, gateway.tag("run")) in script
    assert gateway_identity(GATEWAY_SECRET, gateway.tag("run"))[0].decode() in script
    assert f"{world.extra['gateway_command']} gateway --listen" in script
    assert GATEWAY_SECRET not in script and SECRET not in script


@pytest.mark.parametrize(
    "command", ["", "a;b", "a && b", "a | b", "$(a)", "`a`", "a > b", "a\nb", "a\n", "a'b", 'a"b', "a\\b", "a*", "~/a"]
)
def test_a_gateway_command_is_a_path_with_plain_arguments(command: str) -> None:
    with pytest.raises(InvalidRequest, match="gateway_command") as caught:
        gateway_user_data(command=command, key="k", tls=b"", port=8443)
    assert caught.value.remedy


def test_a_gateway_command_for_a_shell_is_found_with_the_connection() -> None:
    with pytest.raises(InvalidRequest, match="gateway_command 'wavelift; id' is not a path"):
        settings(**{**FULL, "gateway_command": "wavelift; id"})


def test_the_user_data_starts_the_command_as_it_is() -> None:
    script = gateway_user_data(command="env A=b-c /opt/x_1/wavelift", key="k" * 64, tls=b"", port=9000)
    assert "exec env A=b-c /opt/x_1/wavelift gateway --listen" in script and ':9000"' in script


def settings(login: str = "id", password: str = "secret", **extra: Any) -> AlibabaSettings:
    return AlibabaSettings.from_connection(
        connection_id="my_cloud", login=login, password=password, extra=extra, region="r", zone="z"
    )


FULL = {
    "gateway_image": "m-1",
    "gateway_instance_type": "ecs.g7.large",
    "gateway_security_group": "sg-1",
    "gateway_secret": "s",
}


def test_settings_have_sane_defaults() -> None:
    made = settings(**FULL)
    # Without an endpoint it is the region's own.
    assert (made.endpoint, made.access.protocol, made.poll_seconds) == ("ecs.r.aliyuncs.com", "https", 10.0)
    assert (made.gateway.command, made.gateway.port) == ("wavelift", 8443)


@pytest.mark.parametrize("field", [*FULL, "login", "password"])
def test_a_missing_field_of_the_connection_is_named(field: str) -> None:
    values: dict[str, Any] = {**FULL, field: ""}
    with pytest.raises(InvalidRequest, match=f"Airflow connection my_cloud has no .*{field}") as caught:
        settings(**values)
    assert "Admin > Connections > my_cloud" in caught.value.remedy and field in caught.value.remedy


@pytest.mark.parametrize(
    ("field", "value"),
    [("poll_seconds", "often"), ("poll_seconds", -1), ("gateway_port", "https"), ("gateway_port", 0.5)],
)
def test_a_field_that_is_no_number_is_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"my_cloud.*{field}.*{value}"):
        settings(**{**FULL, field: value})


def test_another_backend_is_no_backend(world: World) -> None:
    with pytest.raises(UnknownBackend, match="installed are: alibaba, "):
        open_backend("aws", connection_id="c", login="", password="", extra={}, region="", zone="")


def test_a_wrong_status_is_a_conflict_with_the_clouds_code(world: World, run: Run) -> None:
    """The cloud's own refusal of a status keeps its code."""
    backend = world.backend()
    volume = backend.create_volume(run(Role.REPLICA, "data"), SMALL)
    with pytest.raises(Conflict, match=r"IncorrectDiskStatus\.NeverAttached"):
        backend.snapshot(volume.id, run(Role.REPLICA, "data", 1))
