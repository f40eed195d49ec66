"""The admin API as a person with curl uses it."""

import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.localcloud.faults.conftest import Order
from tests.localcloud.servers import Launcher
from wavelift.localcloud.faults.calls import Faults
from wavelift.localcloud.server import LocalCloud


@pytest.fixture
def admin(server: LocalCloud, faults: Faults) -> Any:
    headers = {"Authorization": f"Bearer {server.admin_token}"}
    with httpx.Client(base_url=f"http://{server.admin_endpoint}", headers=headers, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic wrong"])
@pytest.mark.parametrize(("method", "path"), [("GET", "/rules"), ("POST", "/reset"), ("GET", "/none")])
def test_nothing_is_told_without_the_token(server: LocalCloud, header: str | None, method: str, path: str) -> None:
    headers = {} if header is None else {"Authorization": header}
    with httpx.Client(trust_env=False) as client:
        answer = client.request(method, f"http://{server.admin_endpoint}{path}", headers=headers)
    assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
    assert "Authorization: Bearer TOKEN" in answer.json()["error"]


def test_the_token_is_its_owners_alone(server: LocalCloud, state: Path) -> None:
    file = state / "admin-token"
    assert file.read_text() == server.admin_token and len(server.admin_token) > 30
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_rules_are_added_counted_replaced_and_removed(admin: httpx.Client, ecs: Any) -> None:
    rules = "rules: [{id: a, action: DescribeRegions, fault: {kind: throttle}}, {fault: {kind: reset}, calls: [99]}]"
    added = admin.post("/rules", content=rules)
    assert added.status_code == 201 and [rule["id"] for rule in added.json()["rules"]] == ["a", "rule-1"]
    with ecs.refused("Throttling.User", 400):
        ecs.call("describe_regions")
    first, second = admin.get("/rules").json()["rules"]
    assert first == {
        "id": "a",
        "action": "DescribeRegions",
        "fault": {"kind": "throttle"},
        "selected": 1,
        "injected": 1,
    }
    assert second == {"id": "rule-1", "calls": [99], "fault": {"kind": "reset"}, "selected": 1, "injected": 0}
    replaced = admin.put("/rules/a", json={"from": 2, "fault": {"kind": "throttle"}})
    assert replaced.json() == {"id": "a", "from": 2, "fault": {"kind": "throttle"}, "selected": 0, "injected": 0}
    ecs.call("describe_regions")
    assert admin.delete("/rules/a").status_code == 204
    assert [rule["id"] for rule in admin.get("/rules").json()["rules"]] == ["rule-1"]
    assert admin.delete("/rules").status_code == 204
    assert admin.get("/rules").json() == {"rules": []}
    # What was injected stays in the log until a reset.
    (entry,) = admin.get("/log").json()["injected"]
    assert (entry["rule"], entry["kind"], entry["service"], entry["action"]) == (
        "a",
        "throttle",
        "ecs",
        "DescribeRegions",
    )
    assert admin.get("/log", params={"rule": "rule-1"}).json() == {"injected": []}
    assert admin.post("/reset").status_code == 204
    assert admin.get("/log").json() == {"injected": []}


def test_a_mistake_is_told_with_its_line(admin: httpx.Client, faults: Faults, order: Order) -> None:
    answer = admin.post("/rules", content="rules:\n  - fault: {kind: reset}\n  - fault: {kind: rest}\n")
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("request body:3: rules[1].fault: there is no kind 'rest'; use one of ")
    assert faults.rules() == []
    name = order("reset", action="Never")
    taken = admin.post("/rules", json={"rules": [{"id": name, "fault": {"kind": "reset"}}]})
    assert taken.status_code == 409 and f"PUT /rules/{name} replaces it" in taken.json()["error"]
    for missing in (admin.put("/rules/none", json={"fault": {"kind": "reset"}}), admin.delete("/rules/none")):
        assert missing.status_code == 404 and "there is no rule none" in missing.json()["error"]


@pytest.mark.parametrize(("method", "path"), [("POST", "/rules"), ("PUT", "/rules/none")])
def test_nesting_without_end_is_refused(admin: httpx.Client, method: str, path: str) -> None:
    answer = admin.request(method, path, content="[" * 20_000)
    assert answer.status_code == 400 and "is nested too deeply" in answer.json()["error"]


def test_the_command_begins_with_the_rules_of_a_file(tmp_path: Path) -> None:
    """And keeps its token from one start to the next, but neither counts nor log."""
    launcher = Launcher(tmp_path / "state")
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules:\n  - {id: busy, action: DescribeRegions, calls: [1], fault: {kind: throttle}}\n")
    try:
        for _ in range(2):
            server, ecs = launcher.start("--faults", str(rules))
            with ecs.refused("Throttling.User", 400):
                ecs.call("describe_regions")
            ecs.call("describe_regions")
            headers = {"Authorization": f"Bearer {(tmp_path / 'state' / 'admin-token').read_text()}"}
            with httpx.Client(headers=headers, trust_env=False) as client:
                answer = client.get(f"http://{server.hello['admin_endpoint']}/rules").json()
            assert [(rule["id"], rule["selected"], rule["injected"]) for rule in answer["rules"]] == [("busy", 2, 1)]
            assert server.end(signal.SIGTERM) == 0
    finally:
        launcher.close()


def test_the_command_names_what_is_wrong_with_its_rules(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules:\n  - fault: {kind: delay}\n")
    ended = subprocess.run(
        [sys.executable, "-m", "wavelift.localcloud.command", "--state", tmp_path / "state", "--faults", rules],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert ended.stderr == f"wavelift localcloud: {rules}:2: rules[0].fault.seconds: is missing; add it\n"
