"""One whole stack for all end-to-end tests: local cloud, agent, Airflow, with the demo's manifest and broken ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.machine.change import write_generation
from demo.run import MigrationView, run_wave, summary
from demo.stack import REPO, Stack, cloud_extra, launch
from tests.e2e.broken import broken_manifests
from tests.e2e.resources import everything
from wavelift.manifest.load import load


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Started once; everything it started is gone afterwards."""
    root = tmp_path_factory.mktemp("e2e")
    manifests = root / "manifests"
    manifests.mkdir()
    demo = (REPO / "manifests" / "demo.yaml").read_text()
    (manifests / "demo.yaml").write_text(demo)
    for name, text in broken_manifests(demo).items():
        (manifests / f"{name}.yaml").write_text(text)
    running = launch(root / "stack", manifests=manifests)
    try:
        _add_wrong_connections(running)
        yield running
    finally:
        killed = running.stop()
    assert killed == []


@pytest.fixture(scope="session")
def migrated(stack: Stack) -> Iterator[dict[str, Any]]:
    """The demo wave, run to its end through Airflow's REST API; its summary."""
    api = stack.airflow()
    before = everything(stack.cloud())

    def change_source(_migration: str, step: str) -> None:
        if step == "full_copy":
            write_generation(stack.data_disk, 2)

    seen: list[dict[str, Any]] = []

    def look(views: dict[str, MigrationView]) -> None:
        stack.check()
        seen.extend(dict(view.progress) for view in views.values() if view.progress)

    result = run_wave(
        api,
        load(REPO / "manifests" / "demo.yaml"),
        on_change=look,
        on_step_done=change_source,
        seconds=800,
    )
    assert result.verified, result.errors
    yield {**summary(api, result.views["web"], result.run_id), "run_id": result.run_id, "seen": seen, "before": before}


def _add_wrong_connections(stack: Stack) -> None:
    """Connections a user got wrong, one mistake each."""
    api, secrets = stack.airflow(), stack.secrets
    host, _, port = stack.agent_url.removeprefix("http://").rpartition(":")
    agent = {"conn_type": "wavelift_agent", "schema": "http", "host": host, "port": int(port)}
    api.set_connection({**agent, "connection_id": "agent_wrong_token", "password": "not-the-token-of-this-agent"})
    api.set_connection({**agent, "connection_id": "agent_gone", "password": secrets.agent_token, "port": 1})
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


@pytest.fixture(scope="session")
def evidence_copy() -> Path:
    """Where pictures of the running system are kept for people to look at."""
    folder = REPO / ".wavelift" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
