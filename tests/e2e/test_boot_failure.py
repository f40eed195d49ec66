"""A machine that does not come up fails its task with the console's last lines; here the one nobody prepared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, TaskDeferred

from demo.parts import REPO
from demo.stack import Stack, agent_connection, cloud_extra
from operators.boot_verify import BootVerifyOperator
from operators.cleanup import CleanupOperator
from operators.image import ImageOperator
from operators.run import MigrationRun
from operators.step import StepOperator
from storage_backends.base import BootableBackend, Kind, Role, VolumeSpec
from tests.e2e.resources import everything
from wavelift.manifest.load import load
from wavelift.manifest.schema import Manifest

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]
MANIFEST = load(REPO / "manifests" / "demo.yaml")


@pytest.fixture
def airflow_environment(
    stack: Stack, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operators outside of a scheduler: the connection comes from the environment."""
    connection = {
        "conn_type": "wavelift_alibaba",
        "login": stack.access_key[0],
        "password": stack.access_key[1],
        "extra": cloud_extra(stack),
    }
    monkeypatch.setenv("AIRFLOW_CONN_WAVELIFT_CLOUD", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW_CONN_WAVELIFT_AGENT", json.dumps(agent_connection(stack)))
    monkeypatch.setenv("AIRFLOW__WAVELIFT__EVIDENCE_DIR", str(tmp_path_factory.mktemp("evidence")))


@pytest.fixture
def unprepared(stack: Stack, migrated: dict[str, Any], airflow_environment: None) -> Iterator[dict[str, Any]]:
    """The context of a run whose clones are as the source was: replica snapshots, cloned, never prepared."""
    context: dict[str, Any] = {
        "dag": SimpleNamespace(dag_id="migrate__demo__web"),
        "run_id": "unprepared",
        # No task of this run succeeded: cleanup keeps nothing.
        "ti": SimpleNamespace(task_id="x", task=None, get_task_states=lambda **_: {}),
    }
    before = everything(stack.cloud())
    run = MigrationRun.of(MANIFEST, MANIFEST.migrations[0], context)  # type: ignore[arg-type]
    backend = run.backend()
    try:
        gateway = backend.use_gateway(run.gateway_labels(1), "vsw-local-a", 4, run.labels())
        for disk in run.disks:
            kept = backend.get(Kind.SNAPSHOT, migrated["snapshots"][disk.id])
            spec = VolumeSpec(kept.size_gib, "cloud_essd", "PL0")
            clone = backend.clone(kept, run.labels(Role.CLONE, disk.id, 1), spec)
            backend.attach(clone.id, gateway.id)
            backend.snapshot(clone.id, run.labels(Role.REPLICA, disk.id, 1))
        _wait_for_snapshots(run, backend)
        yield context
    finally:
        execute(step(CleanupOperator), context)
    assert everything(stack.cloud()) == before


def test_the_unprepared_machine_fails_with_its_last_words(unprepared: dict[str, Any], stack: Stack) -> None:
    execute(step(ImageOperator), unprepared)
    with pytest.raises(AirflowException) as caught:
        execute(step(BootVerifyOperator), unprepared)
    message = str(caught.value)
    assert message.startswith("[boot_failed] Instance i-")
    assert "its console shows '(initramfs)" in message
    assert "Last console lines:" in message
    assert "/dev/sda1 does not exist" in message
    assert "What to do: see " in message


def step(operator: type[StepOperator], manifest: Manifest = MANIFEST) -> StepOperator:
    return operator(task_id="x", manifest=manifest, migration=manifest.migrations[0])


def execute(operator: StepOperator, context: dict[str, Any]) -> dict[str, Any]:
    """Run a step as Airflow does: each time it defers, wait for its trigger and enter it again."""
    event: Any = None
    while True:
        try:
            return operator.execute(context, event)  # type: ignore[arg-type]
        except TaskDeferred as deferred:
            event = asyncio.run(first_event(deferred.trigger))


async def first_event(trigger: Any) -> Any:
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger ended without an event")


def _wait_for_snapshots(run: MigrationRun, backend: BootableBackend) -> None:
    operator = step(ImageOperator)
    while pending := operator.wait_for(run, list(backend.list(run.labels(Role.REPLICA), Kind.SNAPSHOT))):
        asyncio.run(pending.wait())
