"""A local cloud whose gateways are the real service, an agent beside it, and steps run as Airflow runs them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import oss2
import yaml
from airflow.sdk.exceptions import TaskDeferred
from alibabacloud_ecs20140526 import models

from operators.run import MigrationRun
from operators.step import StepOperator
from storage_backends.base import BootableBackend, Kind, State
from tests.localcloud.conftest import KEY, REGION, SECRET, Ecs
from tests.operators.conftest import GATEWAY_SECRET, TOKEN
from wavelift.localcloud.entities import Instance
from wavelift.localcloud.model.context import Options
from wavelift.localcloud.server import LocalCloud
from wavelift.manifest.schema import Manifest

_DEMO = (Path(__file__).resolve().parents[2] / "manifests" / "demo.yaml").read_text()
# The demo's, on what every cloud has.
TEXT = _DEMO.replace("wavelift-demo", "sg-local-default")
MANIFEST = Manifest.model_validate(yaml.safe_load(TEXT))
WAVELIFT = str(Path(sys.executable).with_name("wavelift"))


@contextmanager
def real_gateways(state: Path, **options: Any) -> Iterator[LocalCloud]:
    """A cloud for `connection`."""
    with LocalCloud(state, {KEY: SECRET}, Options(host_instances=True, grace=1.0, **options)) as cloud:
        yield cloud


def connection(cloud: LocalCloud, **extra: Any) -> str:
    """For AIRFLOW_CONN_WAVELIFT_CLOUD."""
    given = {
        "endpoint": cloud.endpoint,
        "protocol": "http",
        "poll_seconds": 0.2,
        "gateway_image": "host-linux",
        "gateway_instance_type": "ecs.g7.large",
        "gateway_security_group": "sg-local-default",
        "gateway_secret": GATEWAY_SECRET,
        "gateway_command": WAVELIFT,
        **extra,
    }
    return json.dumps({"conn_type": "wavelift_alibaba", "login": KEY, "password": SECRET, "extra": given})


def donor_image(cloud: LocalCloud) -> str:
    """A small image that somebody imported: what the account may do in any case."""
    auth = oss2.AuthV4(KEY, SECRET)
    bucket = oss2.Bucket(auth, f"http://{cloud.oss_endpoint}", "donors", region=REGION, enable_crc=False)
    bucket.create_bucket()
    bucket.put_object("donor.raw", b"what a donor boots by itself" * 1000)
    ecs = Ecs(cloud.endpoint)
    source = models.ImportImageRequestDiskDeviceMapping(
        ossbucket="donors", ossobject="donor.raw", format="RAW", disk_image_size=1
    )
    image: str = ecs.call("import_image", disk_device_mapping=[source], image_name="donor")["ImageId"]
    ecs.wait(ecs.image, image, "Available")
    return image


def crash(cloud: LocalCloud, instance_id: str) -> None:
    """An instance's end as a failing host brings it about."""
    with cloud.cloud.store.transaction() as tx:
        instance = tx.get(Instance, instance_id)
    assert instance is not None
    os.killpg(instance.pid, signal.SIGKILL)


def file_of(state: Path, resource_id: str) -> Path:
    """What a volume or snapshot is on this host."""
    (found,) = state.rglob(f"{resource_id}.raw")
    return found


@contextmanager
def agent(folder: Path, disks: Mapping[str, Path]) -> Iterator[str]:
    """A real agent that offers these disks; gives what AIRFLOW_CONN_WAVELIFT_AGENT says of it."""
    token = folder / "agent.token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)
    offered = [part for name, path in disks.items() for part in ("--disk", f"{name}={path}")]
    command = [WAVELIFT, "agent", "--listen", "127.0.0.1:0", "--state", str(folder / "agent")]
    with (folder / "agent.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--token-file", str(token), *offered], stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        host, _, port = line["url"].removeprefix("https://").rpartition(":")
        yield json.dumps(
            {
                "conn_type": "wavelift_agent",
                "host": host,
                "port": int(port),
                "password": TOKEN,
                "extra": {"fingerprint": line["fingerprint"]},
            }
        )
    finally:
        process.terminate()
        process.wait(20)


def run_context(dag: str, run_id: str, verified: bool = False) -> dict[str, Any]:
    states = {run_id: {"boot_verify": "success"}} if verified else {}
    task = SimpleNamespace(
        dag_id=dag, task_id="x", run_id=run_id, map_index=-1, task=None, get_task_states=lambda **_: states
    )
    return {"dag": SimpleNamespace(dag_id=dag), "run_id": run_id, "ti": task}


def execute(
    operator: type[StepOperator], manifest: Manifest, context: dict[str, Any], migration: int = 0
) -> dict[str, Any]:
    """Run a step as Airflow does: each time it defers, wait for its trigger and enter it again."""
    step = operator(task_id="x", manifest=manifest, migration=manifest.migrations[migration])
    event: Any = None
    while True:
        try:
            return step.execute(context, event)  # type: ignore[arg-type]
        except TaskDeferred as deferred:
            event = asyncio.run(_first_event(deferred.trigger))


async def _first_event(trigger: Any) -> Any:
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger ended without an event")


def settled(run: MigrationRun, backend: BootableBackend, kind: Kind) -> None:
    """Once nothing of that kind of the run is pending any more."""
    deadline = time.monotonic() + 20
    while any(each.state is State.PENDING for each in backend.list(run.labels(), kind)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
