"""The jobs contract over a real server on loopback: submit, resubmit, conflict, cancel, restart, secrets."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from wavelift.service import runner as runner_module
from wavelift.service import tokens
from wavelift.service.client import (
    AsyncServiceClient,
    ServiceClient,
    ServiceError,
    ServiceUnreachable,
    Unauthorized,
)
from wavelift.service.errors import Conflict, ForbiddenRequest, UnauthorizedRequest, WaveliftError
from wavelift.service.job_context import JobContext
from wavelift.service.job_store import JobStore
from wavelift.service.jobs import TRANSITIONS, JobState
from wavelift.service.rest import build_app, shared_secret
from wavelift.service.runner import JobKind, JobRunner
from wavelift.service.server import listen, make_server, url_of
from wavelift.service.tls import service_identity

SECRET = "a-shared-secret-of-the-test"
KEY = "m1/1/copy"


class Spec(BaseModel):
    kind: str
    turns: int = 1
    fail: bool = False
    result_bytes: int = 0
    token: str = ""


class Refused(WaveliftError):
    default_code = "refused"


class Foreign(Exception):
    """As another package may define one: no class of the services, but all that an answer needs."""

    code, message, remedy, status = "elsewhere", "It is elsewhere.", "Look there.", 418


class Harness:
    """A service whose one job kind counts turns, waits between them, and remembers the tokens it saw."""

    def __init__(self, state: Path) -> None:
        self.tokens: list[str] = []
        self.writes = 0
        self.store = JobStore(state / "jobs.db")
        self.runner = JobRunner(self.store, [JobKind("count", Spec, self.count)], workers=2)
        self.runner.start()
        self.socket: socket.socket = listen("127.0.0.1:0")
        identity = service_identity(state)
        self.url, self.fingerprint = url_of(self.socket, identity), identity.fingerprint
        app = build_app("test", self.runner, shared_secret(SECRET))
        app.get("/v1/foreign")(self.foreign)
        self.server = make_server(app, identity)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()
        self._clients: list[ServiceClient] = []
        self.client = self.client_with(SECRET)

    def client_with(self, token: str) -> ServiceClient:
        self._clients.append(ServiceClient(self.url, token, self.fingerprint))
        return self._clients[-1]

    def foreign(self) -> None:
        raise Foreign("It is elsewhere.")

    def count(self, context: JobContext[Spec]) -> dict[str, Any]:
        self.tokens.append(context.spec.token)
        context.step("counting")
        for turn in range(context.spec.turns):
            context.check()
            time.sleep(0.01)
            self.writes += 1
            context.progress(total=context.spec.turns, done=turn + 1)
        if context.spec.fail and context.attempt == 1:
            raise Refused("It was refused.", "Try again.")
        return {"attempt": context.attempt, **({"big": "x" * size} if (size := context.spec.result_bytes) else {})}

    def wait(self, key: str, *states: JobState) -> Any:
        deadline = time.monotonic() + 10
        while (job := self.client.job(key)).state not in states:
            assert time.monotonic() < deadline, job
            time.sleep(0.01)
        return job

    def close(self) -> None:
        # While a connection is open, the server waits at its end for the other side to say that it leaves.
        for client in self._clients:
            client.close()
        self.server.should_exit = True
        self.thread.join()
        self.runner.stop()
        self.store.close()


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(tmp_path)
    yield harness
    harness.close()


def test_every_state_has_its_row_and_only_success_is_for_good() -> None:
    assert set(TRANSITIONS) == set(JobState)
    assert [state for state in JobState if not TRANSITIONS[state]] == [JobState.SUCCEEDED]


def test_submit_runs_once_and_a_resubmission_finds_it(harness: Harness) -> None:
    assert harness.client.health()["status"] == "ok"
    harness.client.submit(KEY, {"kind": "count", "turns": 2})
    job = harness.wait(KEY, JobState.SUCCEEDED)
    assert job.result == {"attempt": 1} and job.finished is not None and job.step == "counting"
    assert job.progress.total_bytes == job.progress.done_bytes == 2
    again = harness.client.submit(KEY, {"kind": "count", "turns": 2})
    assert again.state is JobState.SUCCEEDED and again.attempt == 1
    assert [j.key for j in harness.client.jobs()] == [KEY]


def test_keys_work_with_plain_and_with_encoded_slashes(harness: Harness) -> None:
    harness.client.submit(KEY, {"kind": "count"})
    assert harness.client.get("/v1/jobs/m1/1/copy")["key"] == harness.client.get("/v1/jobs/m1%2F1%2Fcopy")["key"] == KEY


def test_another_spec_is_a_conflict_but_another_token_is_not(harness: Harness) -> None:
    harness.client.submit(KEY, {"kind": "count", "token": "old-token", "fail": True})
    failed = harness.wait(KEY, JobState.FAILED)
    assert (failed.error.code, failed.error.remedy) == ("refused", "Try again.")
    with pytest.raises(ServiceError) as caught:
        harness.client.submit(KEY, {"kind": "count", "turns": 9, "token": "old-token"})
    assert (caught.value.code, caught.value.http_status) == ("conflict", 409)
    assert harness.client.submit(KEY, {"kind": "count", "token": "new-token", "fail": True}).attempt == 2
    harness.wait(KEY, JobState.SUCCEEDED)
    assert harness.tokens == ["old-token", "new-token"]


def test_tokens_never_come_back(harness: Harness) -> None:
    secret = "s3cr3t-value-nobody-may-see"
    answer = harness.client.request("PUT", "/v1/jobs/m1/1/copy", {"kind": "count", "token": secret})
    harness.wait(KEY, JobState.SUCCEEDED)
    assert secret not in repr(answer) + repr(harness.client.get("/v1/jobs"))
    with pytest.raises(ServiceError) as caught:
        harness.client.submit("m1/2/copy", {"kind": "count", "token": [secret]})
    assert caught.value.code == "invalid" and secret not in str(caught.value)
    assert harness.client.jobs()[0].key == KEY


def test_cancel_returns_when_nothing_is_written_any_more(harness: Harness) -> None:
    harness.client.submit(KEY, {"kind": "count", "turns": 10_000})
    harness.wait(KEY, JobState.RUNNING)
    assert harness.client.cancel(KEY).state is JobState.CANCELLED
    written = harness.writes
    time.sleep(0.1)
    assert harness.writes == written
    assert harness.client.submit(KEY, {"kind": "count", "turns": 10_000}).attempt == 2
    assert harness.client.cancel(KEY).state is JobState.CANCELLED


def test_a_full_store_loses_neither_the_job_nor_its_thread(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "STORE_PAUSE_SECONDS", 0.05)
    keys = [f"m2/{number}/copy" for number in range(2)]
    for key in keys:
        harness.client.submit(key, {"kind": "count", "turns": 30, "result_bytes": 500_000})
    for key in keys:
        harness.wait(key, JobState.RUNNING)
    # Real fullness: SQLite may not take another page.
    harness.store._db.execute("PRAGMA max_page_count = 1")
    while harness.writes < 60:
        time.sleep(0.01)
    time.sleep(0.3)
    assert [harness.client.job(key).state for key in keys] == [JobState.RUNNING] * 2
    harness.store._db.execute("PRAGMA max_page_count = 1000000")
    for key in keys:
        assert len(harness.wait(key, JobState.SUCCEEDED).result["big"]) == 500_000
    harness.client.submit(KEY, {"kind": "count", "turns": 1})
    harness.wait(KEY, JobState.SUCCEEDED)


@pytest.mark.parametrize("to", [JobState.RUNNING, JobState.FAILED])
def test_a_store_that_fails_for_a_while_delays_a_job_and_a_resubmission_starts_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, to: JobState
) -> None:
    monkeypatch.setattr(runner_module, "STORE_PAUSE_SECONDS", 0.01)
    transition = harness.store.transition
    left = 5

    def failing(key: str, state: JobState, **more: Any) -> Any:
        nonlocal left
        if state is to and left:
            left -= 1
            raise sqlite3.OperationalError("database or disk is full")
        return transition(key, state, **more)

    monkeypatch.setattr(harness.store, "transition", failing)
    harness.client.submit(KEY, {"kind": "count", "fail": True})
    failed = harness.wait(KEY, JobState.FAILED)
    assert left == 0 and failed.error.code == "refused"
    assert harness.client.submit(KEY, {"kind": "count", "fail": True}).attempt == 2
    harness.wait(KEY, JobState.SUCCEEDED)


def test_a_restart_goes_on_with_what_was_running(tmp_path: Path) -> None:
    first = Harness(tmp_path)
    first.client.submit(KEY, {"kind": "count", "turns": 50})
    first.wait(KEY, JobState.RUNNING)
    first.close()
    second = Harness(tmp_path)
    job = second.wait(KEY, JobState.SUCCEEDED)
    second.close()
    assert job.attempt == 1 and second.writes == 50


def test_a_row_left_running_by_a_killed_process_is_queued_again(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.db")
    store.add(KEY, {"kind": "count", "turns": 1})
    store.transition(KEY, JobState.RUNNING)
    with pytest.raises(Conflict):
        store.transition(KEY, JobState.RUNNING)
    store.close()
    harness = Harness(tmp_path)
    assert harness.wait(KEY, JobState.SUCCEEDED).attempt == 1
    harness.close()
    assert (tmp_path / "jobs.db").stat().st_mode & 0o077 == 0


def test_errors_of_the_clients_are_typed(harness: Harness) -> None:
    with pytest.raises(Unauthorized) as wrong:
        harness.client_with("wrong").jobs()
    assert wrong.value.code == "unauthorized"
    with pytest.raises(Unauthorized):
        harness.client_with("").jobs()
    with pytest.raises(ServiceError) as missing:
        harness.client.job("m1/9/none")
    assert (missing.value.code, missing.value.http_status) == ("not_found", 404)
    with pytest.raises(ServiceError) as nowhere:
        harness.client.get("/v1/nowhere")
    assert nowhere.value.http_status == 404
    with pytest.raises(ServiceError) as unknown:
        harness.client.submit(KEY, {"kind": "unknown"})
    assert unknown.value.code == "invalid" and "count" in unknown.value.remedy


def test_any_error_that_knows_its_status_travels_with_it(harness: Harness) -> None:
    with pytest.raises(ServiceError) as caught:
        harness.client.get("/v1/foreign")
    error = caught.value
    assert (error.http_status, error.code, error.remedy) == (418, "elsewhere", "Look there.")


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"])
def test_nothing_but_health_answers_without_a_token(harness: Harness, path: str) -> None:
    with pytest.raises(ServiceError) as caught:
        harness.client_with("").get(path)
    assert caught.value.http_status == 404 and "/docs for" not in caught.value.remedy


def test_nothing_there_is_unreachable_and_proxies_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(ServiceUnreachable) as caught:
        ServiceClient(f"https://127.0.0.1:{port}", fingerprint="0" * 64).health()
    assert str(port) in str(caught.value) and "127.0.0.1:9/" not in caught.value.cause


def test_the_async_twin(harness: Harness) -> None:
    async def scenario() -> tuple[JobState, JobState]:
        async with AsyncServiceClient(harness.url, SECRET, harness.fingerprint) as client:
            await client.submit(KEY, {"kind": "count", "turns": 10_000})
            running = (await client.job(KEY)).state
            return running, (await client.cancel(KEY)).state

    seen, ended = asyncio.run(scenario())
    assert seen in (JobState.QUEUED, JobState.RUNNING) and ended is JobState.CANCELLED


def test_gateway_tokens_hold_to_scope_volume_migration_and_time() -> None:
    key = "k" * 32
    claims = tokens.verify(key, tokens.issue(key, migration="m", scope="write", volumes=["d-1"], lifetime=60))
    claims.require_volume("d-1")
    for refused in (
        lambda: claims.require_volume("d-2"),
        lambda: claims.require_scope("control"),
        lambda: claims.require_migration("other"),
    ):
        with pytest.raises(ForbiddenRequest):
            refused()
    unbound = tokens.verify(key, tokens.issue(key, migration="m", scope="write", lifetime=60))
    with pytest.raises(ForbiddenRequest):
        unbound.require_volume("d-1")
    tokens.verify(key, tokens.issue(key, migration="m", scope="control", lifetime=60)).require_volume("d-1")
    with pytest.raises(UnauthorizedRequest, match="expired"):
        tokens.verify(key, tokens.issue(key, migration="m", scope="write", lifetime=-1))
    with pytest.raises(UnauthorizedRequest):
        tokens.verify("x" * 32, tokens.issue(key, migration="m", scope="write", lifetime=60))
