"""One whole stack for all end-to-end tests: local cloud, agent, Airflow, with the demo's manifest and broken ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.parts import REPO
from demo.routes import by
from demo.stack import Stack, agent_connection, cloud_extra, launch
from tests.e2e.broken import broken_manifests
from tests.e2e.command import Told, run_demo
from tests.e2e.donors import with_a_donor
from tests.e2e.resources import everything
from wavelift.manifest.route import Route


@pytest.fixture(scope="session")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's, broken ones, and the demo's by each route."""
    folder = tmp_path_factory.mktemp("manifests")
    demo = (REPO / "manifests" / "demo.yaml").read_text()
    (folder / "demo.yaml").write_text(demo)
    for name, text in broken_manifests(demo).items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "donor.yaml").write_text(with_a_donor(demo))
    return folder


@pytest.fixture(scope="session")
def by_route(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Route, Path]:
    """The demo's manifest with three cycles and `route` changed, under a wave's name of its own."""
    shipped = tmp_path_factory.mktemp("shipped")
    found = {}
    for route in Route:
        folder = shipped / route.name
        folder.mkdir()
        text = by(route, folder, (manifests / "demo.yaml").read_text()).replace("cycles: 1", "cycles: 3")
        wave = route.name.lower().replace("_", "-")
        found[route] = manifests / f"{wave}.yaml"
        found[route].write_text(text.replace("wave: demo", f"wave: {wave}"))
    return found


@pytest.fixture(scope="session")
def stack(manifests: Path, by_route: dict[Route, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Started once; everything it started is gone afterwards."""
    running = launch(tmp_path_factory.mktemp("e2e") / "stack", manifests=manifests)
    try:
        _add_wrong_connections(running)
        yield running
    finally:
        killed = running.stop()
    assert killed == []


@pytest.fixture(scope="session")
def told(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The demo wave, run to its end."""
    before = everything(stack.cloud())
    json_file = tmp_path_factory.mktemp("summary") / "summary.json"
    done = run_demo(stack, REPO / "manifests" / "demo.yaml", json_file)
    stack.check()
    assert done.returncode == 0, done.stdout + done.stderr
    return Told(done.stdout, json.loads(json_file.read_text()), before)


@pytest.fixture(scope="session")
def migrated(told: Told) -> dict[str, Any]:
    """The summary of the demo's one migration."""
    (summary,) = told.summary["migrations"]
    return {**summary, "run_id": told.summary["run_id"]}


def _add_wrong_connections(stack: Stack) -> None:
    """Connections a user got wrong, one mistake each."""
    api, agent = stack.airflow(), agent_connection(stack)
    api.set_connection({**agent, "connection_id": "agent_wrong_token", "password": "not-the-token-of-this-agent"})
    api.set_connection({**agent, "connection_id": "agent_gone", "port": 1})
    pin = json.dumps({"fingerprint": "0" * 64})
    api.set_connection({**agent, "connection_id": "agent_wrong_pin", "extra": pin})
    cloud = {"conn_type": "wavelift_alibaba", "login": stack.access_key[0], "password": stack.access_key[1]}
    extra = cloud_extra(stack)
    api.set_connection(
        {
            **cloud,
            "connection_id": "cloud_wrong_key",
            "password": "not-the-secret-of-this-key",
            "extra": json.dumps(extra),
        }
    )
    dead = {**extra, "gateway_command": "/no/such/gateway"}
    api.set_connection({**cloud, "connection_id": "cloud_dead_gateway", "extra": json.dumps(dead)})
