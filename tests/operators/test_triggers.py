"""Triggers against real services and a real local cloud: progress, outages, losses, and being written down."""

from __future__ import annotations

import asyncio
import json
import os
import pydoc
import threading
import time
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

from operators import triggers
from operators.run import MigrationRun
from operators.triggers import BootTrigger, JobTrigger, ResourceTrigger, WaitTrigger
from storage_backends.alibaba import ecs
from storage_backends.alibaba.gateway_boot import gateway_identity, gateway_key
from storage_backends.base import InstanceSpec, Kind, Labels, Role, VolumeSpec
from tests.operators.conftest import GATEWAY_SECRET, KEY, MANIFEST, SPEC, Comms, Service
from wavelift.localcloud.faults.rules import Rule
from wavelift.localcloud.server import LocalCloud
from wavelift.service import tokens
from wavelift.service.jobs import JobState
from wavelift.service.tls import FILE

CLOUD = MANIFEST.cloud.model_dump()
LABELS = Labels("demo", "web", "0123abcd")
GATEWAYS = Labels("demo", "all", "4567cdef", Role.GATEWAY)


def on_agent(context: Any = None) -> JobTrigger:
    trigger = JobTrigger.on_agent("wavelift_agent", KEY)
    if context is not None:
        trigger.task_instance = context["ti"]
    return trigger


def wait(trigger: WaitTrigger) -> dict[str, Any]:
    async def limited() -> dict[str, Any]:
        return await asyncio.wait_for(trigger.wait(), 20)

    return asyncio.run(limited())


def test_progress_is_published_until_the_job_ends(service: Service, context: Any, comms: Comms) -> None:
    service.submit()
    service.wait(JobState.RUNNING)
    threading.Timer(0.4, service.release.set).start()
    assert wait(on_agent(context)) == {"job": KEY}
    assert {(m.key, m.dag_id, m.task_id, m.run_id, m.map_index) for m in comms.sent} == {
        ("progress", "migrate__demo__web", "work", "r", -1)
    }
    first, last = comms.sent[0].value, comms.sent[-1].value
    assert (first["job"], first["step"], first["state"]) == (KEY, "working", "running")
    assert (first["total_bytes"], first["done_bytes"], first["wire_bytes"]) == (100, 40, 10)
    assert (last["state"], last["done_bytes"], last["wire_bytes"]) == ("succeeded", 100, 25)
    assert len(comms.sent) > 2
    json.dumps([message.value for message in comms.sent])


def test_without_a_task_it_waits_all_the_same(service: Service, comms: Comms) -> None:
    service.release.set()
    service.submit()
    assert wait(on_agent()) == {"job": KEY}
    assert comms.sent == []


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_it_reports_any_end_and_judges_none(service: Service, state: JobState) -> None:
    service.submit()
    service.wait(JobState.RUNNING)
    if state is JobState.CANCELLED:
        service.runner.cancel(KEY)
    else:
        service.failure = triggers.ServiceError("busy", "The disk was busy.", "Wait.", 409)
        service.release.set()
    assert wait(on_agent()) == {"job": KEY}
    assert service.wait(state).state is state


def test_an_outage_is_waited_out(service: Service, context: Any, comms: Comms) -> None:
    service.submit()
    service.wait(JobState.RUNNING)
    service.down()

    def back() -> None:
        service.up()
        service.release.set()

    timer = threading.Timer(0.5, back)
    timer.start()
    started = time.monotonic()
    assert wait(on_agent(context)) == {"job": KEY}
    timer.join()
    assert time.monotonic() - started >= 0.5
    assert comms.sent[-1].value["state"] == "succeeded"


def test_a_service_that_stays_away_is_left_to_the_step(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "UNREACHABLE_SECONDS", 0.4)
    service.submit()
    service.down()
    try:
        started = time.monotonic()
        assert wait(on_agent()) == {"job": KEY}
        assert time.monotonic() - started >= 0.4
    finally:
        service.up()


def test_a_lost_job_is_told_from_a_refusal(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wait(on_agent()) == {"job": KEY, "submit": True}
    wrong = {**service.connection(), "password": "not-the-token"}
    monkeypatch.setenv("AIRFLOW_CONN_WAVELIFT_AGENT", json.dumps(wrong))
    service.submit()
    assert wait(on_agent()) == {"job": KEY, "submit": False}


def test_a_long_job_is_submitted_again_for_the_sake_of_its_credentials(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triggers, "RENEW_SECONDS", 0.3)
    service.submit()
    service.wait(JobState.RUNNING)
    started = time.monotonic()
    assert wait(on_agent()) == {"job": KEY, "submit": True}
    assert time.monotonic() - started >= 0.3
    assert service.runner.get(KEY).state is JobState.RUNNING


def test_killing_it_cancels_the_job(service: Service) -> None:
    service.submit()
    service.wait(JobState.RUNNING)
    asyncio.run(on_agent().on_kill())
    assert service.runner.get(KEY).state is JobState.CANCELLED


def test_it_fires_once_and_never_before_its_delay(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that comes too soon makes the scheduler take the task for lost."""
    assert WaitTrigger.delay >= 5
    monkeypatch.setattr(WaitTrigger, "delay", 0.3)
    service.release.set()
    service.submit()

    async def events() -> list[Any]:
        return [event.payload async for event in on_agent().run()]

    started = time.monotonic()
    assert asyncio.run(events()) == [{"job": KEY}]
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize(
    "trigger",
    [
        JobTrigger.on_agent("wavelift_agent", KEY),
        JobTrigger.on_agent("wavelift_agent", KEY, CLOUD, LABELS, GATEWAYS),
        JobTrigger.on_gateway(CLOUD, Labels("demo", "web", "0123abcd", Role.CLONE, "data", 2), GATEWAYS, KEY),
        ResourceTrigger(CLOUD, "snapshot", ["s-1", "s-2"]),
        BootTrigger(CLOUD, "i-1", "127.0.0.9", [{"console": "READY"}, {"tcp": 80}], 600.0),
    ],
    ids=lambda trigger: type(trigger).__name__,
)
def test_what_is_written_down_makes_the_same_trigger(trigger: BaseTrigger) -> None:
    path, values = trigger.serialize()
    again = pydoc.locate(path)(**json.loads(json.dumps(values)))
    assert type(again) is type(trigger)
    assert again.serialize() == trigger.serialize()
    assert vars(again) == vars(trigger)


def test_a_job_of_the_gateway_is_found_through_the_cloud(
    cloud: LocalCloud, context: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Address by tags, and a token that the gateway of this run takes."""
    run = MigrationRun.of(MANIFEST, MANIFEST.migrations[0], context)
    backend = run.backend()
    gateway = backend.use_gateway(run.gateway_labels(1), "vsw-local-a", 4, run.labels())
    key = gateway_key(GATEWAY_SECRET, run.pool)
    pem, _ = gateway_identity(GATEWAY_SECRET, run.pool)
    file = tmp_path / FILE
    file.touch(mode=0o600)
    file.write_bytes(pem)
    service = Service(
        tmp_path, f"{gateway.address}:8443", check=lambda token: tokens.verify(key, token, scope="control")
    )
    try:
        service.runner.submit(KEY, SPEC)
        service.release.set()
        trigger = JobTrigger.on_gateway(CLOUD, run.labels(), run.gateway_labels(), KEY)
        assert wait(trigger) == {"job": KEY}
        assert service.runner.get(KEY).state is JobState.SUCCEEDED
    finally:
        service.down()
        backend.delete(gateway)


def test_without_a_gateway_the_step_has_to_look(cloud: LocalCloud) -> None:
    assert wait(JobTrigger.on_gateway(CLOUD, LABELS, GATEWAYS, KEY)) == {"job": KEY}


def test_without_a_cloud_the_step_has_to_look(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecs, "_RETRY_FOR_SECONDS", 0.2)
    connection = json.loads(os.environ["AIRFLOW_CONN_WAVELIFT_CLOUD"])
    connection["extra"]["endpoint"] = "127.0.0.1:1"
    monkeypatch.setenv("AIRFLOW_CONN_WAVELIFT_CLOUD", json.dumps(connection))
    assert wait(JobTrigger.on_gateway(CLOUD, LABELS, GATEWAYS, KEY)) == {"job": KEY}
    assert wait(ResourceTrigger(CLOUD, "snapshot", ["s-1"])) == {"kind": "snapshot", "ids": ["s-1"]}


def test_resources_are_watched_until_none_is_pending(cloud: LocalCloud, context: Any) -> None:
    run = MigrationRun.of(MANIFEST, MANIFEST.migrations[0], context)
    backend = run.backend()
    gateway = backend.use_gateway(run.gateway_labels(1), "vsw-local-a", 4, run.labels())
    volume = backend.create_volume(run.labels(Role.REPLICA, "data"), VolumeSpec(1, "cloud_essd", "PL0"))
    backend.attach(volume.id, gateway.id)
    with cloud.cloud.engine.hold_clock():
        snapshot = backend.snapshot(volume.id, run.labels(Role.REPLICA, "data", 1))
        trigger = ResourceTrigger(CLOUD, "snapshot", [snapshot.id])
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(trigger.wait(), 0.6))
    assert wait(trigger) == {"kind": "snapshot", "ids": [snapshot.id]}
    assert backend.get(Kind.SNAPSHOT, snapshot.id).status == "accomplished"
    # One that is gone ends the wait: the step finds out.
    assert wait(ResourceTrigger(CLOUD, "snapshot", ["s-gone"])) == {"kind": "snapshot", "ids": ["s-gone"]}


def test_a_boot_is_watched_on_when_the_cloud_refuses_once(cloud: LocalCloud, context: Any) -> None:
    """A machine that has stopped ends the watch; a refusal of the cloud in between does not end it, nor the trigger."""
    run = MigrationRun.of(MANIFEST, MANIFEST.migrations[0], context)
    spec = InstanceSpec("host-linux", "ecs.c7.large", "vsw-local-a", "sg-local-default", "cloud_essd", 40)
    instance = run.backend().run_instance(run.labels(Role.TARGET), spec)
    actions = ["DescribeInstances", "GetInstanceConsoleOutput"]
    cloud.faults.add(
        Rule.model_validate({"id": action, "action": action, "calls": [1], "fault": {"kind": "forbidden"}})
        for action in actions
    )
    try:
        trigger = BootTrigger(CLOUD, instance.id, instance.address, [{"console": "NEVER SEEN"}], 60.0)
        assert wait(trigger) == {"instance": instance.id, "watched": True}
        assert sorted(entry.action for entry in cloud.faults.log()) == actions
    finally:
        cloud.faults.reset()
    assert run.backend().get(Kind.INSTANCE, instance.id).status == "Stopped"
