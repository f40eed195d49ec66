"""What agent and gateway tell of a real job: their API's document, events, figures for Prometheus, logs."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from wavelift.pinning import pinned_context
from wavelift.service import tokens
from wavelift.service.jobs import JobState

from .conftest import KEY, MIB, MIGRATION, SECRET, Service, Stack, noise, succeeded, wait

REPOSITORY = Path(__file__).parents[2]
SCRAPER = "may-only-look-at-figures"


def caller(service: Service, token: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(
        base_url=service.url, headers=headers, verify=pinned_context(service.fingerprint), trust_env=False, timeout=30
    )


class Contract:
    """A service's own document, and whether its answers are as it says."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self.document = client.get("/v1/openapi.json").json()
        self.seen: set[tuple[str, str]] = set()

    def call(
        self, method: str, template: str, status: int, json: Any = None, token: str | None = None, **of: Any
    ) -> Any:
        path = re.sub(r"\{(\w+)\}", lambda found: str(of.get(found[1], "")), template)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        answer = self._client.request(method, path, json=json, headers=headers)
        assert answer.status_code == status, answer.text
        described = self.document["paths"][template][method.lower()]["responses"]
        content = (described.get(str(status)) or described[f"{status // 100}XX"])["content"]
        self.seen.add((method, template))
        kind = answer.headers["content-type"].split(";")[0]
        assert kind in content, (kind, content)
        if kind != "application/json":
            return answer.content
        schema = {**content[kind]["schema"], "components": self.document["components"]}
        jsonschema.validate(answer.json(), schema, cls=jsonschema.Draft202012Validator)
        return answer.json()


def begun(stack: Stack) -> Stack:
    stack.disk("sda", 6 * MIB, {0: noise(3 * MIB), 5 * MIB: b"end"})
    for name in ("v1", "v2", "v3"):
        stack.volume(name, 6 * MIB)
    (stack.folder / "scraper").write_text(SCRAPER)
    return stack.start("--metrics-token-file", str(stack.folder / "scraper"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("telling"))
    yield begun(stack)
    stack.stop()


@pytest.fixture
def told(running: Stack) -> Stack:
    """An agent that knows of no migration; each test takes another volume."""
    with running.agent_client as client:
        client.delete(f"/v1/migrations/{MIGRATION}")
    return running


def test_answers_are_as_the_documents_say_and_every_call_is_among_them(told: Stack) -> None:
    with caller(told.agent, SECRET) as client:
        agent = Contract(client)
        agent.call("GET", "/v1/health", 200, token="none")
        assert agent.call("GET", "/v1/disks", 200)[0]["size"] == 6 * MIB
        key = f"{MIGRATION}/1/copy"
        spec = told.spec(1, sda="v1")
        agent.call("PUT", "/v1/jobs/{key}", 201, json=spec, key=key)
        wait(told.agent_client, key, JobState.SUCCEEDED)
        agent.call("PUT", "/v1/jobs/{key}", 200, json=spec, key=key)
        agent.call("PUT", "/v1/jobs/{key}", 409, json={**spec, "generation": 2}, key=key)
        agent.call("PUT", "/v1/jobs/{key}", 422, json={"kind": "none"}, key=key)
        agent.call("GET", "/v1/jobs/{key}", 200, key=key)
        agent.call("GET", "/v1/jobs/{key}", 404, key="none")
        agent.call("GET", "/v1/jobs/{key}", 401, key=key, token="wrong")
        agent.call("GET", "/v1/jobs", 200)
        agent.call("DELETE", "/v1/jobs/{key}", 200, key=key)
        agent.call("GET", "/v1/events", 200)
        agent.call("GET", "/v1/openapi.json", 200)
        agent.call("GET", "/metrics", 200)
        agent.call("GET", "/v1/limits", 200)
        agent.call("PUT", "/v1/limits", 200, json={"bandwidth": None})
        agent.call("GET", "/v1/migrations/{migration}/limits", 200, migration=MIGRATION)
        agent.call("PUT", "/v1/migrations/{migration}/limits", 200, json={"bandwidth": None}, migration=MIGRATION)
        commit = "/v1/migrations/{migration}/generations/{generation}/commit"
        agent.call("POST", commit, 404, migration=MIGRATION, generation=7)
        agent.call("POST", commit, 422, migration=MIGRATION, generation="first")
        agent.call("POST", commit, 200, migration=MIGRATION, generation=1)
        sample = "/v1/migrations/{migration}/generations/{generation}/sample"
        agent.call("POST", sample, 200, json={"blocks": 8}, migration=MIGRATION, generation=1)
        lost = {"disks": [{"disk": "sda", "ranges": [[0, 1]]}]}
        doubts = "/v1/migrations/{migration}/generations/{generation}/doubts"
        agent.call("POST", doubts, 200, json=lost, migration=MIGRATION, generation=1)
        agent.call("GET", "/v1/migrations/{migration}", 200, migration=MIGRATION)
        told.verify(1, sda="v1")
        agent.call("DELETE", "/v1/migrations/{migration}", 200, migration=MIGRATION)
        assert agent.seen == calls(agent.document)

    control = tokens.issue(KEY, migration=MIGRATION, scope="control", lifetime=600)
    write = tokens.issue(KEY, migration=MIGRATION, scope="write", volumes=["v1"], lifetime=600)
    with caller(told.gateway, control) as client:
        gateway = Contract(client)
        gateway.call("GET", "/v1/health", 200, token="none")
        assert gateway.call("GET", "/v1/volumes", 200)[0]["id"] == "d-v1"
        readbacks = "/v1/volumes/{volume}/readbacks/{generation}"
        gateway.call("GET", readbacks, 200, volume="v1", generation=1, token=write)
        gateway.call("GET", f"{readbacks}/segments/{{number}}", 200, volume="v1", generation=1, number=0, token=write)
        gateway.call("GET", readbacks, 403, volume="v1", generation=1)
        gateway.call("GET", "/v1/volumes/{volume}/taken", 200, volume="v1", token=write)
        gateway.call("GET", "/v1/volumes/{volume}/taken", 200, volume="v1", token=write)
        pack = "/v1/volumes/{volume}/generations/{generation}/packs/{sequence}"
        gateway.call("PUT", pack, 403, volume="v1", generation=1, sequence=1)
        seen = {call for call in calls(gateway.document) if call not in calls(agent.document)}
        assert seen <= gateway.seen


def calls(document: dict[str, Any]) -> set[tuple[str, str]]:
    found = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    for method, path in found:
        assert document["paths"][path][method.lower()]["summary"]
    return found


def test_the_documents_of_the_calls_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("api_documents", REPOSITORY / "scripts" / "api_documents.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for service, document in module.documents().items():
        written = (REPOSITORY / "docs" / "api" / f"{service}.json").read_text()
        assert written == module.text_of(document), "run make api"


def figures(service: Service, token: str) -> dict[str, float]:
    with caller(service, token) as client:
        answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    return {
        f"{sample.name}{{{','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))}}}": sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def since(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What counters were raised by; others as they are now."""
    return {
        name: value - before.get(name, 0) if name.partition("{")[0].endswith("_total") else value
        for name, value in after.items()
    }


def test_figures_of_a_real_job_and_who_may_ask(told: Stack) -> None:
    with caller(told.agent, "") as client:
        assert client.get("/metrics").status_code == 401
    with caller(told.agent, SCRAPER) as client:
        assert client.get("/v1/jobs").status_code == 401
    before = figures(told.agent, SCRAPER)
    assert before["process_resident_memory_bytes{}"] > 1 << 20
    control = tokens.issue(KEY, migration=MIGRATION, scope="control", lifetime=60)
    gateway_before = figures(told.gateway, control)
    began = time.time()
    result = told.replicate(1, sda="v2")
    told.commit(1)
    agent = since(before, figures(told.agent, SCRAPER))
    sent = sum(disk["wire_bytes"] for disk in result["disks"])
    # It reads archives back, and nothing else.
    assert agent["wavelift_bytes_total{what=verified}"] == 0
    assert agent["wavelift_bytes_total{what=wire}"] == sent > 3 * MIB
    # Holes are not read.
    assert 3 * MIB <= agent["wavelift_bytes_total{what=read}"] < 6 * MIB
    assert agent["wavelift_jobs{kind=replicate,state=succeeded}"] == 1
    assert agent["wavelift_jobs{kind=replicate,state=running}"] == agent["wavelift_jobs{kind=repair,state=failed}"] == 0
    assert agent[f"wavelift_committed_generation{{migration={MIGRATION}}}"] == 1
    assert agent[f"wavelift_committed_timestamp_seconds{{migration={MIGRATION}}}"] >= int(began)
    assert agent["wavelift_throttle_wait_seconds_total{}"] >= 0 and agent["wavelift_connections{}"] == 0

    told.verify(1, "verify-figures", sda="v2")
    gateway = since(gateway_before, figures(told.gateway, control))
    assert gateway["wavelift_packs_total{}"] == agent["wavelift_packs_total{}"] >= 1
    assert gateway["wavelift_pack_bytes_total{what=wire}"] == sent
    moved = {name: value for name, value in gateway.items() if name.startswith("wavelift_bytes_total") and value}
    assert moved == {"wavelift_bytes_total{what=verified}": 6 * MIB}
    verified = "wavelift_jobs{kind=verify,state=succeeded}"
    assert gateway[verified] == gateway_before[verified] + 1


def test_a_gateway_that_is_away_shows_as_errors_and_retries(stack: Stack) -> None:
    told = begun(stack)
    told.gateway.kill()
    with told.agent_client as client:
        client.submit(f"{MIGRATION}/1/copy", told.spec(1, sda="v1"))
        while figures(told.agent, SCRAPER).get("wavelift_wire_retries_total{}", 0) < 2:
            time.sleep(0.05)
        told.gateway.start()
        succeeded(client, f"{MIGRATION}/1/copy")
    after = figures(told.agent, SCRAPER)
    assert after["wavelift_wire_errors_total{code=sink_unreachable}"] >= 2


def test_events_are_numbered_outlive_a_kill_and_tell_all_of_a_job(stack: Stack) -> None:
    told = begun(stack)
    key = f"{MIGRATION}/1/copy"
    told.replicate(1, sda="v1")
    told.agent.kill()
    told.agent.start()
    with told.agent_client as client:
        first = client.get("/v1/events?limit=2")
        rest = client.get(f"/v1/events?after={first['next']}&job={key.replace('/', '%2F')}")
        found = [*first["events"], *rest["events"]]
        assert [event["what"] + " " + event["text"] for event in found][:3] == [
            "state queued",
            "state running",
            "step waiting",
        ]
        assert found[-1]["text"] == "succeeded" and {event["migration"] for event in found} == {MIGRATION}
        numbers = [event["id"] for event in found]
        assert numbers == sorted(set(numbers)) and rest["next"] == numbers[-1]
        assert client.get(f"/v1/events?after={numbers[-1]}") == {"events": [], "next": numbers[-1]}
        client.submit(f"{MIGRATION}/2/copy", told.spec(2, base=1, none="v1"))
        wait(client, f"{MIGRATION}/2/copy", JobState.FAILED)
        last = client.get(f"/v1/events?after={numbers[-1]}")["events"]
        assert ("error", "disk_not_found") in {(event["what"], event["code"]) for event in last}


def test_the_log_is_json_names_the_job_and_never_a_token(told: Stack) -> None:
    with told.agent_client as client:
        client.submit(f"{MIGRATION}/2/copy", told.spec(2, none="v1"))
        wait(client, f"{MIGRATION}/2/copy", JobState.FAILED)
        write = told.spec(1, sda="v3")["disks"][0]["sink"]["token"]
        client.submit(f"{MIGRATION}/1/copy", told.spec(1, token=write, sda="v3"))
        succeeded(client, f"{MIGRATION}/1/copy")
    lines = [json.loads(line) for line in told.agent.log().splitlines()]
    [failed] = [line for line in lines if "disk_not_found" in line["message"]]
    assert (failed["level"], failed["migration"], failed["generation"]) == ("warning", MIGRATION, 2)
    assert failed["job"] == f"{MIGRATION}/2/copy" and failed["time"].endswith("+00:00")
    for log in (told.agent.log(), told.gateway.log()):
        assert write not in log and SECRET not in log and KEY not in log and SCRAPER not in log


def test_the_agent_stands_back_behind_its_host_unless_told_otherwise(told: Stack) -> None:
    def nice(pid: int) -> int:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16])

    def limit(pid: int) -> str:
        return next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "data size" in line)

    pid = told.agent.process.pid
    # Threads too: each has its own.
    assert {nice(int(task.name)) for task in Path(f"/proc/{pid}/task").iterdir()} == {max(10, os.nice(0))}
    assert ionice(pid) == (2, 7)
    assert str(1024 << 20) in limit(pid)
    eager = Service(
        "agent",
        told.folder,
        *("--state", str(told.folder / "other"), "--token-file", str(told.folder / "secret")),
        *("--full-priority", "--max-memory", "0"),
    )
    try:
        assert nice(eager.process.pid) == os.nice(0) and ionice(eager.process.pid) != (2, 7)
        assert str(1024 << 20) not in limit(eager.process.pid)
    finally:
        eager.stop()


def ionice(pid: int) -> tuple[int, int]:
    found = psutil.Process(pid).ionice()
    return int(found.ioclass), int(found.value)
