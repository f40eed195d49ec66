"""Limits of agent, migration and gateway: set by request or by the job, kept, and changed while a job runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from wavelift.service.client import ServiceClient, ServiceError
from wavelift.service.jobs import JobState, JobStatus

from .conftest import MIB, MIGRATION, Stack, noise, same, succeeded, wait
from .test_telling import figures

KEY = f"{MIGRATION}/1/copy"
ALL, OWN = "/v1/limits", f"/v1/migrations/{MIGRATION}/limits"
# At this rate what the tests copy would take hours: none of it ends by itself.
CRAWL = "1K"


def put(client: ServiceClient, path: str, bandwidth: Any) -> dict[str, Any]:
    return dict(client.request("PUT", path, {"bandwidth": bandwidth}))


def at_step(client: ServiceClient, step: str, seconds: float = 60) -> JobStatus:
    deadline = time.monotonic() + seconds
    while not (job := client.job(KEY)).step.startswith(step):
        assert time.monotonic() < deadline and not job.state.final, job
        time.sleep(0.02)
    return job


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A disk that takes several packs, and a volume for each test that copies it."""
    stack = Stack(tmp_path_factory.mktemp("limits"))
    stack.disk("sda", 12 * MIB, {0: noise(12 * MIB)})
    for name in ("v1", "v2", "v3", "v4"):
        stack.volume(name, 12 * MIB)
    yield stack.start()
    stack.stop()


@pytest.fixture
def two(running: Stack) -> Stack:
    """Agent and gateway without limits; the agent knows of no migration."""
    with running.agent_client as client:
        client.delete(f"/v1/migrations/{MIGRATION}")
        put(client, ALL, None)
    with running.gateway_client as client:
        put(client, ALL, None)
    return running


def test_a_raised_limit_ends_the_crawl_of_a_running_job(two: Stack) -> None:
    with two.agent_client as client:
        assert put(client, ALL, CRAWL)["limit"] == 1000
        client.submit(KEY, two.spec(1, sda="d-v1"))
        at_step(client, "copying")
        put(client, OWN, 0)
        put(client, ALL, None)
        at_step(client, "paused")
        put(client, OWN, "1GB/s")
        assert succeeded(client, KEY)["root"] == two.verify(1, sda="d-v1")["root"]
        assert client.job(KEY).attempt == 1
    assert same(two.disks["sda"], two.folder / "v1.volume")


def test_a_job_under_a_crawl_is_cancelled_and_its_agent_stopped_at_once(two: Stack) -> None:
    with two.agent_client as client:
        put(client, ALL, CRAWL)
        client.submit(KEY, two.spec(1, sda="d-v2"))
        at_step(client, "copying")
        assert client.cancel(KEY).state is JobState.CANCELLED
        # The gateway holds no pack open that would keep its volume from others.
        two.verify(1, "verify-cancelled", sda="d-v2")
        client.submit(KEY, two.spec(1, sda="d-v2"))
        at_step(client, "copying")
    two.agent.stop()
    two.agent.start()
    with two.agent_client as client:
        # What was set outlived the restart, and the job goes on under it.
        assert client.get(ALL)["limit"] == 1000
        at_step(client, "copying")
        put(client, ALL, None)
        succeeded(client, KEY)
    assert same(two.disks["sda"], two.folder / "v2.volume")


def test_a_job_carries_a_limit_that_its_resubmission_changes_and_a_request_goes_before(two: Stack) -> None:
    window = {"from": "00:00", "to": "24:00", "limit": 0}
    spec = two.spec(1, sda="d-v3")
    with two.agent_client as client:
        client.submit(KEY, {**spec, "bandwidth": {"limit": CRAWL, "windows": [window], "timezone": "Asia/Shanghai"}})
        at_step(client, "paused")
        about = client.get(OWN)
        assert (about["set_by"], about["limit"], about["bandwidth"]["timezone"]) == ("job", 0, "Asia/Shanghai")
        assert put(client, OWN, CRAWL)["set_by"] == "request"
        at_step(client, "copying")
        client.submit(KEY, {**spec, "bandwidth": "1GB/s"})
        assert client.get(OWN)["limit"] == 1000
        put(client, OWN, None)
        succeeded(client, KEY)
        client.delete(f"/v1/migrations/{MIGRATION}")
        assert client.get(OWN) == {"bandwidth": None, "limit": None, "until": None, "set_by": None}


def test_the_gateway_holds_back_all_senders_and_lets_them_go(two: Stack) -> None:
    with two.gateway_client as gateway:
        assert put(gateway, ALL, CRAWL)["limit"] == 1000
    two.gateway.stop()
    two.gateway.start()
    with two.agent_client as agent, two.gateway_client as gateway:
        assert gateway.get(ALL)["limit"] == 1000
        agent.submit(KEY, two.spec(1, sda="d-v4"))
        while figures(two.gateway, two.control_token())["wavelift_throttle_wait_seconds_total{}"] < 0.5:
            assert not agent.job(KEY).state.final
            time.sleep(0.02)
        assert gateway.health()["packs_received"] == 0
        put(gateway, ALL, None)
        succeeded(agent, KEY)
        assert gateway.health()["packs_received"] > 0
    assert same(two.disks["sda"], two.folder / "v4.volume")


def test_who_may_set_limits_and_what_is_refused(two: Stack) -> None:
    with two.client_of_gateway(two.write_token("d-v1")) as client, pytest.raises(ServiceError) as refused:
        put(client, ALL, None)
    assert refused.value.http_status == 403
    with two.agent_client as client:
        for path, value, words in (
            (ALL, "50Mb/s", "400mbit"),
            (OWN, {"windows": [{"from": "8", "to": "9", "limit": 0}]}, "time of day"),
            ("/v1/migrations/..%2Fweb/limits", None, ""),
        ):
            with pytest.raises(ServiceError) as refused:
                put(client, path, value)
            assert refused.value.http_status in (404, 422) and words in refused.value.message
        assert client.get(ALL)["bandwidth"] is None


@pytest.mark.slow
@pytest.mark.parametrize("where", ["agent", "gateway"])
def test_at_64_kilobytes_a_second_no_request_times_out(stack: Stack, where: str) -> None:
    # Longer than any timeout of a request: 8 MiB take two minutes.
    disk = stack.disk("sda", 8 * MIB, {0: noise(8 * MIB)})
    volume = stack.volume("v1", 8 * MIB)
    stack.start()
    with stack.agent_client as agent, stack.gateway_client as gateway:
        put(agent if where == "agent" else gateway, ALL, "64KB/s")
        agent.submit(KEY, stack.spec(1, sda="d-v1"))
        assert wait(agent, KEY, JobState.SUCCEEDED, JobState.FAILED, seconds=280).state is JobState.SUCCEEDED
        # Nothing was sent twice.
        assert gateway.health()["packs_received"] == 3
    assert same(disk, volume) and "ended early" not in stack.gateway.log()
