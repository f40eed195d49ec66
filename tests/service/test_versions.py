"""Two sides of different versions: each finds out before it matters, and says who has to be upgraded."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.service.test_service import SECRET, Harness
from wavelift import __version__
from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.blocks.handshake import FormatMismatch, readable
from wavelift.blocks.sink import open_sink
from wavelift.service.client import ServiceClient, ServiceError
from wavelift.service.job_store import JobStore
from wavelift.service.rest import Health, build_app, shared_secret
from wavelift.service.runner import JobRunner
from wavelift.service.server import listen, make_server, url_of
from wavelift.service.tls import service_identity
from wavelift.service.versions import API, OLDEST_API, VersionMismatch


class AnyHealth(Health):
    """Of a service of any version."""

    api: Any
    oldest_api: Any


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(tmp_path)
    yield harness
    harness.close()


def speaking(client: ServiceClient, api: str) -> ServiceClient:
    """The client of another version, as far as a service can tell."""
    client._http.headers.update({"wavelift-api": api, "wavelift-version": "9.9.9"})
    return client


@contextmanager
def service_saying(folder: Path, health: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """URL and fingerprint of a service whose health says that."""
    store, identity, server = JobStore(folder / "jobs.db"), service_identity(folder), listen("127.0.0.1:0")
    app = build_app("gateway", JobRunner(store, []), shared_secret(SECRET), health=lambda: health, answer=AnyHealth)
    running = make_server(app, identity)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [server]}, daemon=True)
    thread.start()
    try:
        yield url_of(server, identity), identity.fingerprint
    finally:
        running.should_exit = True
        thread.join()
        store.close()


def test_equals_understand_each_other(harness: Harness) -> None:
    health = harness.client.health()
    assert (health["version"], health["api"], health["oldest_api"]) == (__version__, API, OLDEST_API)
    harness.client.check_version()
    assert harness.client.jobs() == []


@pytest.mark.parametrize(("api", "upgrade"), [(str(API + 1), "test"), (str(OLDEST_API - 1), "caller")])
def test_a_service_refuses_who_speaks_another_interface(harness: Harness, api: str, upgrade: str) -> None:
    client = speaking(harness.client_with(SECRET), api)
    with pytest.raises(ServiceError) as caught:
        client.submit("m/1/copy", {"kind": "count"})
    error = caught.value
    assert (error.code, error.http_status) == ("version_mismatch", 409)
    assert "9.9.9" in error.message and __version__ in error.message and f"API {api}" in error.message
    assert error.remedy.startswith(f"Upgrade the {upgrade}")
    assert harness.client.jobs() == []
    # Both can still find out what the other one is.
    assert client.health()["api"] == API


@pytest.mark.parametrize("sent", ["", "one", "-1", "1.0", "9" * 400])
def test_a_header_that_is_no_version_is_refused(harness: Harness, sent: str) -> None:
    with pytest.raises(ServiceError) as caught:
        speaking(harness.client_with(SECRET), sent).jobs()
    assert caught.value.code == "invalid" and len(caught.value.message) < 100


@pytest.mark.parametrize(
    ("health", "upgrade"),
    [
        ({"version": "9.9.9", "api": API + 2, "oldest_api": API + 1}, "caller"),
        ({"version": "0.0.1", "api": API - 1, "oldest_api": API - 1}, "gateway"),
        ({"version": "0.0.1", "api": None, "oldest_api": None}, "gateway"),
    ],
)
def test_a_client_finds_out_before_it_asks_for_anything(tmp_path: Path, health: dict[str, Any], upgrade: str) -> None:
    with (
        service_saying(tmp_path, health) as (url, fingerprint),
        ServiceClient(url, SECRET, fingerprint) as client,
        pytest.raises(VersionMismatch) as caught,
    ):
        client.check_version()
    assert health["version"] in caught.value.message and __version__ in caught.value.message
    assert caught.value.code == "version_mismatch" and caught.value.remedy.startswith(f"Upgrade the {upgrade}")


@pytest.mark.parametrize(
    ("reads", "upgrade"),
    [
        ({**readable(), "versions": [99]}, "agent"),
        ({**readable(), "versions": [0]}, "gateway"),
        ({**readable(), "codecs": readable()["codecs"][:1]}, "gateway"),
        ({}, "gateway"),
    ],
)
def test_no_pack_is_sent_to_a_gateway_that_cannot_read_it(tmp_path: Path, reads: dict[str, Any], upgrade: str) -> None:
    # At the data port nothing listens: a pack on its way would fail otherwise, and be tried for a minute.
    with service_saying(tmp_path, {"data_port": 1, "packs": reads}) as (url, fingerprint):
        sink = open_sink(
            SinkDescriptor(url=url, fingerprint=fingerprint, volume="d-1", generation=1, token="t"), give_up_seconds=60
        )
        with pytest.raises(FormatMismatch) as caught:
            sink.put(1, memoryview(b"pack"))
        sink.close()
    error = caught.value
    assert error.code == "version_mismatch" and error.remedy == f"Upgrade the {upgrade}."
    assert "the gateway reads" in error.message
