"""Peers that connect to a service and ask for nothing, or never end asking."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.test_service import SECRET, Harness
from wavelift.service import gate as gate_module
from wavelift.service.client import ServiceClient
from wavelift.service.gate import Gate, Watched
from wavelift.service.rest import build_app, shared_secret
from wavelift.service.server import listen, make_server, url_of


class Guarded:
    """The service of the other tests behind a gate; without TLS, so that a peer is a socket."""

    def __init__(self, harness: Harness) -> None:
        self.gate = Gate(listen("127.0.0.1:0"))
        self.url = url_of(self.gate, None)
        app = build_app("test", harness.runner, shared_secret(SECRET))
        app.get("/v1/slow")(self.slow)
        self.server = make_server(Watched(app, self.gate), None)
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.gate]}, daemon=True)
        self._thread.start()

    def slow(self) -> None:
        time.sleep(1.5)

    def dial(self) -> socket.socket:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return socket.create_connection((host, int(port)), timeout=20)

    def close(self) -> None:
        self.server.should_exit = True
        self._thread.join(10)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    harness = Harness(tmp_path)
    made = Guarded(harness)
    yield made
    made.close()
    harness.close()


def test_who_asks_for_nothing_is_sent_away_and_who_waits_for_an_answer_is_not(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "REQUEST_SECONDS", 1.0)
    put = b"PUT /v1/jobs/k HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n{"
    beginnings = [b"", b"GET /v1/health HTTP/1.1\r\nX: ", put]
    with ServiceClient(guarded.url, SECRET) as client:
        peers = [guarded.dial() for _ in beginnings]
        for peer, begin in zip(peers, beginnings, strict=True):
            peer.sendall(begin)
        assert client.get("/v1/slow") is None
        for peer in peers:
            with peer:
                # Some are told that they were refused before they had ended; none is kept.
                while peer.recv(4096):
                    continue
        with guarded.dial() as peer:
            peer.sendall(b"GET /v1/health HTTP/1.1\r\nHost: h\r\n\r\n")
            assert peer.recv(4096).startswith(b"HTTP/1.1 200")
            peer.sendall(b"GET /v1/health HTTP/1.1\r\nX: ")
            while peer.recv(4096):
                continue
        assert client.health()["status"] == "ok"


def test_beyond_the_places_there_is_none_until_one_leaves(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gate_module, "MAX_CONNECTIONS", 5)
    peers = [guarded.dial() for _ in range(5)]
    for _ in range(3):
        with guarded.dial() as refused:
            try:
                assert refused.recv(1) == b""
            except ConnectionResetError:
                continue
    assert sum("connections are taken" in record.message for record in caplog.records) == 1
    peers.pop().close()
    deadline = time.monotonic() + 20
    while True:
        with guarded.dial() as peer:
            try:
                peer.sendall(b"GET /v1/health HTTP/1.1\r\nHost: h\r\n\r\n")
                if peer.recv(4096).startswith(b"HTTP/1.1 200"):
                    break
            except OSError:
                assert time.monotonic() < deadline
        assert time.monotonic() < deadline
    for peer in peers:
        peer.close()


def test_a_service_may_open_as_many_files_as_the_system_allows() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    code = (
        "import resource; from wavelift.service.gate import allow_many_files;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (256, {most}));"
        "allow_many_files(); print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(said) == most
