"""The data port among peers that do not shake hands as they should."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.test_gateway import KEY, SIZE, Gateway, make_pack
from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.blocks.digest import BLOCK
from wavelift.gateway import data
from wavelift.service import tokens


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path)
    yield gateway
    gateway.close()


def test_who_does_not_shake_hands_keeps_nobody_waiting(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "HANDSHAKE_SECONDS", 0.5)
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
