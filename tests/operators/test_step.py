"""What a step makes of the state of its job, asked of a real service, and how it tells Airflow what is wrong."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

from operators import step as steps
from operators.run import MigrationRun
from operators.step import Event, Outcome, StepFailed, StepOperator
from operators.triggers import JobTrigger, ResourceTrigger
from storage_backends.base import Kind, Resource, State
from storage_backends.errors import (
    BackendError,
    Conflict,
    Denied,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    Unavailable,
)
from tests.operators.conftest import KEY, MANIFEST, SECRETS, SPEC, Service, step
from wavelift.service.errors import WaveliftError
from wavelift.service.jobs import JobState


def deferred(context: Any, event: Any = None) -> JobTrigger:
    """Enter the step; it must not end but wait."""
    with pytest.raises(TaskDeferred) as caught:
        step().execute(context, event)
    assert caught.value.method_name == "execute"
    assert isinstance(caught.value.trigger, JobTrigger)
    return caught.value.trigger


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits go to the triggerer soon."""
    monkeypatch.setattr(steps, "_PATIENCE_SECONDS", 0.2)


def test_a_short_job_ends_in_the_task_itself(service: Service, context: Any) -> None:
    timer = threading.Timer(0.3, service.release.set)
    timer.start()
    assert step().execute(context) == {"attempt": 1}


@pytest.mark.usefixtures("hasty")
def test_a_long_job_is_waited_for_elsewhere_and_found_again(service: Service, context: Any) -> None:
    trigger = deferred(context)
    assert service.wait(JobState.RUNNING).attempt == 1
    # A killed worker: the task is entered anew, without an event, and finds the job that runs.
    again = deferred(context)
    assert again.serialize() == trigger.serialize()
    service.release.set()
    event = asyncio.run(trigger.wait())
    assert step().execute(context, event) == {"attempt": 1}
    assert len(service.runner.all()) == 1


@pytest.mark.usefixtures("hasty")
def test_a_queued_job_is_waited_for(service: Service, context: Any) -> None:
    service.submit("another/1/work")
    service.wait(JobState.RUNNING, key="another/1/work")
    trigger = deferred(context)
    assert service.wait(JobState.QUEUED).attempt == 1
    service.release.set()
    assert step().execute(context, asyncio.run(trigger.wait())) == {"attempt": 1}


def test_a_job_that_succeeded_is_not_run_again(service: Service, context: Any) -> None:
    service.release.set()
    service.submit()
    service.wait(JobState.SUCCEEDED)
    assert step().execute(context) == {"attempt": 1}


def test_a_job_that_failed_before_this_try_runs_again(service: Service, context: Any) -> None:
    service.release.set()
    service.failure = WaveliftError("The disk was busy.", "Try again.", code="busy")
    service.submit()
    service.wait(JobState.FAILED)
    service.failure = None
    assert step().execute(context) == {"attempt": 2}


@pytest.mark.usefixtures("hasty")
def test_a_job_that_fails_while_waited_for_fails_the_try_and_is_left_alone(service: Service, context: Any) -> None:
    service.failure = WaveliftError("The disk was busy.", "Wait for the backup to end.", code="busy")
    trigger = deferred(context)
    service.release.set()
    event = asyncio.run(trigger.wait())
    with pytest.raises(AirflowException) as caught:
        step().execute(context, event)
    assert type(caught.value) is AirflowException
    assert str(caught.value) == f"[busy] {KEY}: The disk was busy. What to do: Wait for the backup to end."
    assert service.runner.get(KEY).attempt == 1


def test_a_job_that_fails_at_once_fails_the_try_too(service: Service, context: Any) -> None:
    service.release.set()
    service.failure = WaveliftError("The disk was busy.", "Wait.", code="busy")
    with pytest.raises(AirflowException, match=r"^\[busy\] "):
        step().execute(context)
    assert service.runner.get(KEY).attempt == 1


@pytest.mark.usefixtures("hasty")
def test_a_cancelled_job_fails_the_try_that_waited_and_the_next_runs_it_again(service: Service, context: Any) -> None:
    trigger = deferred(context)
    service.runner.cancel(KEY)
    event = asyncio.run(trigger.wait())
    with pytest.raises(AirflowException) as caught:
        step().execute(context, event)
    assert str(caught.value) == (f"[step_failed] Job {KEY} was cancelled. What to do: Clear this task to run it again.")
    assert service.runner.get(KEY).state is JobState.CANCELLED
    service.release.set()
    assert step().execute(context) == {"attempt": 2}


@pytest.mark.usefixtures("hasty")
def test_a_job_that_the_service_lost_is_submitted_again(service: Service, context: Any) -> None:
    trigger = deferred(context)
    service.down()
    service.up(forgetful=True)
    event = asyncio.run(trigger.wait())
    assert event["job"] == KEY
    service.release.set()
    assert step().execute(context, event) == {"attempt": 1}


@pytest.mark.usefixtures("hasty")
def test_a_job_goes_on_over_a_restart_of_the_service(service: Service, context: Any) -> None:
    trigger = deferred(context)
    service.down()
    service.up()
    service.release.set()
    assert step().execute(context, asyncio.run(trigger.wait())) == {"attempt": 1}


def test_an_event_of_another_trigger_is_no_event(service: Service, context: Any) -> None:
    service.release.set()
    assert step().execute(context, "2026-01-01T00:00:00") == {"attempt": 1}
    # Nor is one of another job: this one is submitted, not merely looked at.
    service.runner.forget([KEY])
    assert step().execute(context, {"job": "another/1/work"}) == {"attempt": 1}


def test_a_wrong_token_fails_for_good(service: Service, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {**service.connection(), "password": "not-the-token"}
    monkeypatch.setenv("AIRFLOW_CONN_WAVELIFT_AGENT", json.dumps(wrong))
    with pytest.raises(AirflowFailException) as caught:
        step().execute(context)
    assert str(caught.value).startswith("[unauthorized] The token is not this service's.")
    assert "What to do: Check its token file." in str(caught.value)
    assert "not-the-token" not in str(caught.value)


def test_a_service_that_is_gone_may_be_tried_again(service: Service, context: Any) -> None:
    service.down()
    try:
        with pytest.raises(AirflowException) as caught:
            step().execute(context)
    finally:
        service.up()
    assert type(caught.value) is AirflowException
    assert str(caught.value).startswith(f"[service_unreachable] {service.url} cannot be reached: ConnectError")
    assert "What to do: Check that the service runs" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "permanent"),
    [
        ("invalid", True),
        ("unauthorized", True),
        ("forbidden", True),
        ("disk_not_found", True),
        ("volume_too_small", True),
        ("unsupported_guest", True),
        ("no_operating_system", True),
        ("corrupt", False),
        ("internal", False),
        ("io", False),
    ],
)
def test_a_jobs_error_is_retried_where_that_can_help(
    service: Service, context: Any, code: str, permanent: bool
) -> None:
    service.release.set()
    service.failure = WaveliftError("It went wrong.", "Mend it.", code=code)
    with pytest.raises(AirflowException) as caught:
        step().execute(context)
    assert type(caught.value) is (AirflowFailException if permanent else AirflowException)
    assert str(caught.value) == f"[{code}] {KEY}: It went wrong. What to do: Mend it."


@pytest.mark.parametrize(
    ("kind", "permanent"),
    [
        (Denied, True),
        (InvalidRequest, True),
        (QuotaExceeded, True),
        (NotFound, False),
        (Conflict, False),
        (Unavailable, False),
        (BackendError, False),
        (StepFailed, False),
    ],
)
def test_a_backends_error_is_retried_where_that_can_help(context: Any, kind: Any, permanent: bool) -> None:
    class Failing(StepOperator):
        def advance(self, run: MigrationRun, context: Any, event: Event) -> Outcome:
            raise kind("It went wrong.", "Mend it.")

    with pytest.raises(AirflowException) as caught:
        step(Failing).execute(context)
    assert type(caught.value) is (AirflowFailException if permanent else AirflowException)
    code = "step_failed" if kind is StepFailed else kind.code
    assert str(caught.value) == f"[{code}] It went wrong. What to do: Mend it."


def resource(state: State, name: str) -> Resource:
    return Resource(Kind.SNAPSHOT, name, state, state.value)


def test_resources_are_waited_for_until_all_are_ready(context: Any) -> None:
    run = MigrationRun.of(MANIFEST, MANIFEST.migrations[0], context)
    ready, pending = resource(State.READY, "s-1"), resource(State.PENDING, "s-2")
    assert step().wait_for(run, [ready]) is None
    trigger = step().wait_for(run, [ready, pending])
    assert isinstance(trigger, ResourceTrigger)
    assert (trigger.kind, trigger.ids) == ("snapshot", ["s-2"])
    with pytest.raises(StepFailed, match="Snapshot s-3 ended as failed"):
        step().wait_for(run, [ready, pending, resource(State.FAILED, "s-3")])


def test_no_trigger_carries_a_secret(service: Service, cloud: Any, context: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(steps, "_PATIENCE_SECONDS", 0.05)
    run = MigrationRun.of(MANIFEST, MANIFEST.migrations[0], context)
    resources = step().wait_for(run, [resource(State.PENDING, "s-2")])
    assert resources is not None
    for trigger in (deferred(context), step().wait_for_gateway(run, KEY), resources):
        stored = json.dumps(trigger.serialize())
        assert not [secret for secret in (*SECRETS, SPEC["token"]) if secret in stored]
        assert "wavelift_agent" in stored or "wavelift_cloud" in stored
