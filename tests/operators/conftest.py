"""A real service with one kind of job, a real local cloud, and operators that meet both outside of a scheduler."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from operators import triggers
from operators.run import MigrationRun
from operators.step import Event, Outcome, StepOperator
from tests.localcloud.conftest import KEY as ACCESS_KEY
from tests.localcloud.conftest import SECRET as ACCESS_SECRET
from wavelift.localcloud.model.context import Options
from wavelift.localcloud.server import LocalCloud
from wavelift.manifest.load import load
from wavelift.service.client import ServiceClient
from wavelift.service.errors import WaveliftError
from wavelift.service.job_context import JobContext
from wavelift.service.job_store import JobStore
from wavelift.service.jobs import JobState, JobStatus
from wavelift.service.rest import build_app, shared_secret
from wavelift.service.runner import JobKind, JobRunner
from wavelift.service.server import listen, make_server, url_of
from wavelift.service.tls import service_identity

TOKEN = "the-shared-secret-of-the-agent"
GATEWAY_SECRET = "the-root-of-every-gateway-key-of-these-tests"
SECRETS = (TOKEN, GATEWAY_SECRET, ACCESS_SECRET)
KEY = "demo-web-run/1/work"
SPEC = {"kind": "work", "token": "a-credential-of-the-job"}
MANIFEST = load(Path(__file__).resolve().parents[2] / "manifests" / "demo.yaml")


class Work(BaseModel):
    kind: str
    token: str = ""


class Service:
    """Jobs wait for `release`, then fail with `failure` or succeed. It can go down and come back at its address."""

    def __init__(self, state: Path, address: str = "127.0.0.1:0", check: Callable[[str], Any] | None = None) -> None:
        self.state = state
        self.release = threading.Event()
        self.failure: WaveliftError | None = None
        self._check = check or shared_secret(TOKEN)
        self._address = address
        self._stores = 0
        self.up()

    def up(self, *, forgetful: bool = False) -> None:
        self._stores += forgetful
        self.store = JobStore(self.state / f"jobs{self._stores}.db")
        self.runner = JobRunner(self.store, [JobKind("work", Work, self._work)], workers=1)
        self.runner.start()
        self._socket = listen(self._address)
        identity = service_identity(self.state)
        self.url, self.fingerprint = url_of(self._socket, identity), identity.fingerprint
        self._address = self.url.removeprefix("https://")
        app = build_app("test", self.runner, self._check)
        self._server = make_server(app, identity)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()

    def down(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        self._socket.close()
        self.runner.stop()
        self.store.close()

    def _work(self, context: JobContext[Work]) -> dict[str, Any]:
        context.step("working")
        context.progress(total=100, done=40, wire=10)
        while not self.release.wait(0.01):
            context.check()
        if self.failure is not None:
            raise self.failure
        context.progress(total=100, done=100, wire=25)
        return {"attempt": context.attempt}

    def client(self, token: str = TOKEN) -> ServiceClient:
        return ServiceClient(self.url, token, self.fingerprint)

    def connection(self, **extra: Any) -> dict[str, Any]:
        """The Airflow connection to it."""
        host, _, port = self._address.rpartition(":")
        extra = extra or {"fingerprint": self.fingerprint}
        return {"conn_type": "wavelift_agent", "host": host, "port": int(port), "password": TOKEN, "extra": extra}

    def submit(self, key: str = KEY) -> None:
        with self.client() as client:
            client.submit(key, SPEC)

    def wait(self, *states: JobState, key: str = KEY) -> JobStatus:
        deadline = time.monotonic() + 10
        while (job := self.runner.get(key)).state not in states:
            assert time.monotonic() < deadline, job
            time.sleep(0.01)
        return job


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The agent of the demo's manifest."""
    running = Service(tmp_path)
    monkeypatch.setenv("AIRFLOW_CONN_WAVELIFT_AGENT", json.dumps(running.connection()))
    monkeypatch.setattr(triggers, "JOB_POLL_SECONDS", 0.05)
    yield running
    running.release.set()
    running.down()


@pytest.fixture(scope="session")
def local_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    state = tmp_path_factory.mktemp("cloud")
    with LocalCloud(state, {ACCESS_KEY: ACCESS_SECRET}, Options(host_instances=True, grace=1.0)) as running:
        yield running


@pytest.fixture
def cloud(local_cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalCloud:
    """The cloud of the demo's manifest; its gateways do nothing."""
    command = tmp_path / "gateway"
    command.write_text("#!/bin/sh\nexec sleep 600\n")
    command.chmod(0o755)
    extra = {
        "endpoint": local_cloud.endpoint,
        "protocol": "http",
        "poll_seconds": 0.2,
        "gateway_image": "host-linux",
        "gateway_instance_type": "ecs.g7.large",
        "gateway_security_group": "sg-local-default",
        "gateway_secret": GATEWAY_SECRET,
        "gateway_command": str(command),
    }
    connection = {"conn_type": "wavelift_alibaba", "login": ACCESS_KEY, "password": ACCESS_SECRET, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_WAVELIFT_CLOUD", json.dumps(connection))
    return local_cloud


class Comms:
    """What a task or trigger tells its supervisor."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, msg: Any) -> None:
        self.sent.append(msg)


@pytest.fixture
def comms(monkeypatch: pytest.MonkeyPatch) -> Comms:
    recorder = Comms()
    monkeypatch.setattr("airflow.sdk.execution_time.task_runner.SUPERVISOR_COMMS", recorder, raising=False)
    return recorder


@pytest.fixture
def context(comms: Comms, tmp_path: Path) -> Any:
    """What Airflow hands to a task, as far as steps look at it; each test is a run of its own."""
    return {
        "dag": SimpleNamespace(dag_id="migrate__demo__web"),
        "run_id": tmp_path.name + str(time.time_ns()),
        "ti": SimpleNamespace(dag_id="migrate__demo__web", task_id="work", run_id="r", map_index=-1, task=None),
    }


class WorkStep(StepOperator):
    """The simplest step: one job of the agent."""

    def advance(self, run: MigrationRun, context: Any, event: Event) -> Outcome:
        with run.agent() as agent:
            status = self.job(agent, KEY, SPEC, event)
        if status.state is not JobState.SUCCEEDED:
            return self.wait_for_agent(run, KEY)
        return dict(status.result or {})


def step(operator: type[StepOperator] = WorkStep) -> StepOperator:
    return operator(task_id="work", manifest=MANIFEST, migration=MANIFEST.migrations[0])
