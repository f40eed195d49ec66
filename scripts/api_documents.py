"""Writes docs/api/agent.json and gateway.json: what the services serve at /v1/openapi.json."""

from __future__ import annotations

import json
import socket
import tempfile
from pathlib import Path
from typing import Any

import wavelift.agent.app
import wavelift.gateway.app
from wavelift.blocks.limits import Limits
from wavelift.blocks.meter import WireMeter
from wavelift.gateway.data import DataServer
from wavelift.gateway.readbacks import ReadBacks
from wavelift.gateway.volumes import Volumes
from wavelift.service.openapi import describe

FOLDER = Path(__file__).parent.parent / "docs" / "api"
KEY = "none-of-these-services-ever-listens-anywhere"


def documents() -> dict[str, dict[str, Any]]:
    """By service."""
    with tempfile.TemporaryDirectory() as scratch, socket.socket() as listener:
        state = Path(scratch)
        listener.bind(("127.0.0.1", 0))
        limits, readbacks = Limits(state / "limits.json"), ReadBacks(state)
        volumes = Volumes(state, state / "owners", readbacks)
        wire = WireMeter()
        jobs = wavelift.agent.app.make_runner(state / "agent", {}, limits, 1, wire)
        agent = wavelift.agent.app.make_app(state / "agent", {}, limits, jobs, KEY, wire)
        found = {"agent": describe(agent, jobs.models())}
        jobs = wavelift.gateway.app.make_runner(state / "gateway", volumes, readbacks, limits.all)
        data = DataServer(listener, volumes, limits.all, KEY, None)
        gateway = wavelift.gateway.app.make_app(volumes, readbacks, limits, jobs, data, KEY)
        found["gateway"] = describe(gateway, jobs.models())
    return found


def text_of(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for service, document in documents().items():
        (FOLDER / f"{service}.json").write_text(text_of(document))
