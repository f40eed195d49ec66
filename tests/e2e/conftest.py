"""One whole stack for all end-to-end tests: local cloud, agent, Airflow, with the demo's manifest and broken ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.stack import REPO, Stack, cloud_extra, launch
from tests.e2e.broken import broken_manifests


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


def _add_wrong_connections(stack: Stack) -> None:
    """Connections a user got wrong, one mistake each."""
    api, secrets = stack.airflow(), stack.secrets
    host, _, port = stack.agent_url.removeprefix("http://").rpartition(":")
    agent = {"conn_type": "wavelift_agent", "schema": "http", "host": host, "port": int(port)}
    api.set_connection({**agent, "connection_id": "agent_wrong_token", "password": "not-the-token-of-this-agent"})
    api.set_connection({**agent, "connection_id": "agent_gone", "password": secrets.agent_token, "port": 1})
    cloud = {"conn_type": "wavelift_alibaba", "login": secrets.access_key_id, "password": secrets.access_key_secret}
    extra = cloud_extra(stack)
    api.set_connection({**cloud, "connection_id": "cloud_wrong_key", "password": "wrong", "extra": json.dumps(extra)})
    dead = {**extra, "gateway_command": "ls /no/such/gateway"}
    api.set_connection({**cloud, "connection_id": "cloud_dead_gateway", "extra": json.dumps(dead)})


@pytest.fixture(scope="session")
def evidence_copy() -> Path:
    """Where pictures of the running system are kept for people to look at."""
    folder = REPO / ".wavelift" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
