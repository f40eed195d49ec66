"""The data port among peers that do not shake hands as they should."""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.test_gateway import KEY, SIZE, Gateway, make_pack
from wavelift.blocks import sink as sink_module
from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.blocks.digest import BLOCK
from wavelift.blocks.errors import SinkError
from wavelift.blocks.sink import open_sink
from wavelift.gateway import data
from wavelift.service import tokens


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path)
    yield gateway
    gateway.close()


def test_who_does_not_shake_hands_keeps_nobody_waiting(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "FIRST_SECONDS", 0.5)
    silent = [socket.create_connection(("127.0.0.1", gateway.data.port), timeout=20) for _ in range(3)]
    assert gateway.put(make_pack(b"x" * BLOCK))[0] == 200
    # They are sent away after a while, and not kept for as long as an idle sender would be.
    assert [peer.recv(1) for peer in silent] == [b""] * 3
    for peer in silent:
        peer.close()


def test_a_pack_in_plain_text_is_not_taken(gateway: Gateway) -> None:
    token = tokens.issue(KEY, migration="web", scope="write", volumes=["d-v1"], lifetime=60)
    pack = make_pack(os.urandom(BLOCK))
    with socket.create_connection(("127.0.0.1", gateway.data.port), timeout=20) as peer:
        head = f"PUT /v1/volumes/d-v1/generations/1/packs/1 HTTP/1.1\r\nAuthorization: Bearer {token}\r\n"
        peer.sendall(f"{head}Content-Length: {len(pack)}\r\n\r\n".encode())
        try:
            answer = peer.recv(4096)
        except ConnectionResetError:
            answer = b""
    assert b"HTTP" not in answer
    assert gateway.volume.read_bytes() == b"o" * SIZE and gateway.data.packs_received == 0


def test_a_descriptor_shows_its_fingerprint_and_never_its_token() -> None:
    sink = SinkDescriptor(url="https://g", fingerprint="a" * 64, volume="d-1", generation=1, token="not-to-be-seen")
    assert "a" * 64 in repr(sink) and "not-to-be-seen" not in repr(sink) + str(sink)


HEAD = b"PUT /v1/volumes/d-v1/generations/1/packs/1 HTTP/1.1\r\n"


def closed(peer: socket.socket) -> bool:
    try:
        return peer.recv(4096) == b""
    except ConnectionResetError:
        return True


def test_who_sends_a_head_byte_by_byte_is_sent_away(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "FIRST_SECONDS", 1.0)
    with gateway.dial() as slow, gateway.dial() as patient:
        slow.sendall(HEAD + b"X: ")
        # Each byte is a sign of life, and none of them counts.
        slow.settimeout(0.1)
        deadline = time.monotonic() + 20
        while True:
            assert time.monotonic() < deadline
            try:
                slow.sendall(b"y")
                assert slow.recv(1) == b""
                break
            except TimeoutError:
                continue
            except OSError:
                break
        assert closed(patient)
        # A sender whose token was good may take its time between packs.
        assert gateway.put(make_pack(b"x" * BLOCK))[0] == 200
        time.sleep(1.2)
        gateway.connection.auto_open = 0
        assert gateway.put(make_pack(b"x" * BLOCK))[0] == 200


def test_a_head_without_end_is_not_kept(gateway: Gateway) -> None:
    with gateway.dial() as peer:
        lines = b"".join(b"H%d: %s\r\n" % (number, b"a" * 60_000) for number in range(2))
        try:
            peer.sendall(HEAD + lines)
        except OSError:
            return
        assert closed(peer)


def test_a_sender_that_finds_no_place_is_told_so_and_counted(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sink_module, "_connect", lambda _: gateway.connect())
    gateway.connection.close()
    token = tokens.issue(KEY, migration="web", scope="write", volumes=["d-v1"], lifetime=60)
    descriptor = SinkDescriptor(url="http://gateway", volume="d-v1", generation=1, token=token)
    peers = [
        socket.create_connection(("127.0.0.1", gateway.data.port), timeout=20) for _ in range(data.MAX_CONNECTIONS)
    ]
    try:
        deadline = time.monotonic() + 20
        while gateway.data.connections < data.MAX_CONNECTIONS:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for _ in range(2):
            with pytest.raises(SinkError, match="All 256 connections of the gateway are taken") as caught:
                open_sink(descriptor, give_up_seconds=0).put(1, memoryview(make_pack(os.urandom(SIZE - 8 * BLOCK))))
            assert caught.value.code == "too_many_connections" and caught.value.remedy
    finally:
        for peer in peers:
            peer.close()
    assert gateway.data.taken.refused() == {"too_many_connections": 2}
    assert sum("connections are taken" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"Content-Length: " + b"9" * 5000, 422),
        (b"Content-Length: \xb2", 422),
        (b"Content-Length: 1\xb2", 422),
        (b"Content-Length: +5", 422),
        (b"Content-Length: 0\r\nAuthorization: Bearer \xe9.\xe9.\xe9", 401),
    ],
)
def test_what_is_no_length_or_no_token_is_answered(gateway: Gateway, header: bytes, status: int) -> None:
    with gateway.dial() as peer:
        peer.sendall(HEAD + header + b"\r\n\r\n")
        answer = http.client.HTTPResponse(peer)
        answer.begin()
        assert answer.status == status and len(answer.read()) < 1000 and closed(peer)


def test_what_nobody_foresaw_is_logged_and_answered(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(data, "ingest", broken)
    status, said = gateway.put(make_pack(b"x" * BLOCK))
    assert (status, said["error"]["code"]) == (500, "internal")
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]
    monkeypatch.undo()
    assert gateway.put(make_pack(b"x" * BLOCK))[0] == 200
