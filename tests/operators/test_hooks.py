"""The agent's Airflow connection: what its Test button says, and what preflight finds, with a wrong pin or version."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.providers_manager import ProvidersManager
from airflow.sdk.exceptions import AirflowFailException

from operators.hooks import AgentHook, BadConnection
from operators.preflight import PreflightOperator
from tests.operators.conftest import TOKEN, Service, step
from wavelift.service import versions

OTHER = "5" * 64


def connect(monkeypatch: pytest.MonkeyPatch, connection: dict[str, Any]) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAVELIFT_AGENT", json.dumps(connection))


def test_the_form_asks_for_a_fingerprint() -> None:
    manager = ProvidersManager()
    field = manager.connection_form_widgets["extra__wavelift_agent__fingerprint"]
    assert not field.is_sensitive
    placeholders = manager.field_behaviours["wavelift_agent"]["placeholders"]
    assert "64 hex digits" in placeholders["extra__wavelift_agent__fingerprint"]


def test_the_test_button_knows_the_agent_by_its_certificate(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    # The service of these tests offers no disks: that it says so itself shows that it was asked.
    assert AgentHook().test_connection()[1].startswith("GET /v1/disks: Not Found.")
    connect(monkeypatch, service.connection(fingerprint=OTHER))
    works, said = AgentHook().test_connection()
    assert not works and OTHER in said and service.fingerprint in said and "in its Airflow connection" in said
    assert TOKEN not in said


@pytest.mark.parametrize("extra", [{"fingerprint": ""}, {"fingerprint": "12:34"}, {"other": 1}, "no JSON", "[]"])
def test_a_connection_without_a_fingerprint_names_itself(
    service: Service, monkeypatch: pytest.MonkeyPatch, extra: Any
) -> None:
    connect(monkeypatch, {**service.connection(), "extra": extra})
    with pytest.raises(BadConnection, match="Airflow connection wavelift_agent has no fingerprint") as caught:
        AgentHook().get_conn()
    assert caught.value.code == "invalid" and "what the agent prints when it starts" in caught.value.remedy


@pytest.mark.parametrize(
    ("scheme", "said"), [("HTTPS", ""), ("http", "the scheme http beside the fingerprint"), ("ftp", "'ftp'")]
)
def test_a_scheme_never_takes_the_pin_away(
    service: Service, monkeypatch: pytest.MonkeyPatch, scheme: str, said: str
) -> None:
    connect(monkeypatch, {**service.connection(fingerprint=OTHER), "schema": scheme})
    if said:
        with pytest.raises(BadConnection, match=said):
            AgentHook().get_conn()
    else:
        works, told = AgentHook().test_connection()
        assert not works and OTHER in told and service.fingerprint in told


@pytest.mark.usefixtures("cloud")
def test_preflight_finds_a_wrong_certificate(service: Service, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, service.connection(fingerprint=OTHER))
    with pytest.raises(AirflowFailException, match=r"connection wavelift_agent\): \[wrong_fingerprint\]") as caught:
        step(PreflightOperator).execute(context)
    assert OTHER in str(caught.value) and service.fingerprint in str(caught.value)


@pytest.mark.usefixtures("cloud", "service")
def test_preflight_finds_an_agent_of_another_version(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only the client's own number is raised: the service answers with the one it was made with.
    said = versions.description()
    monkeypatch.setattr("wavelift.service.rest.description", lambda: said)
    monkeypatch.setattr(versions, "API", versions.API + 1)
    with pytest.raises(AirflowFailException, match=r"connection wavelift_agent\): \[version_mismatch\]") as caught:
        step(PreflightOperator).execute(context)
    assert "Upgrade the test." in str(caught.value)


def test_a_wrong_certificate_fails_a_step_for_good(
    service: Service, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, service.connection(fingerprint=OTHER))
    with pytest.raises(AirflowFailException, match=r"^\[wrong_fingerprint\]"):
        step().execute(context)
    assert service.runner.all() == []
