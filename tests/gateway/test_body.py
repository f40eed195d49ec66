"""How slowly the data port reads, what it tells those it holds back, and whom they keep out."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wavelift.blocks.bandwidth import Bandwidth
from wavelift.blocks.digest import BLOCK
from wavelift.blocks.wire import abandon
from wavelift.gateway import body
from wavelift.gateway.data import PACKS_AT_ONCE
from wavelift.service import tokens

from .test_gateway import KEY, Gateway, make_pack

DATA = os.urandom(BLOCK)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path)
    yield gateway
    gateway.close()


def begin(gateway: Gateway, pack: bytes, sent: int) -> socket.socket:
    """A connection on which the first `sent` bytes of a pack are under way."""
    token = tokens.issue(KEY, migration="web", scope="write", volumes=["d-v1"], lifetime=60)
    sock = gateway.dial()
    head = (
        "PUT /v1/volumes/d-v1/generations/1/packs/1 HTTP/1.1\r\nHost: gateway\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(pack)}\r\n\r\n"
    )
    sock.sendall(head.encode() + pack[:sent])
    return sock


def test_who_is_held_back_is_told_and_then_answered(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "TELL_SECONDS", 0.0)
    gateway.throttle.change(Bandwidth(limit=0))
    pack = make_pack(DATA)
    sock = begin(gateway, pack, len(pack))
    with sock, sock.makefile("rb") as file:
        assert file.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert gateway.volume.read_bytes()[:BLOCK] == b"o" * BLOCK
        gateway.throttle.change(Bandwidth(limit=640_000))
        lines = iter(file.readline, b"")
        assert any(line == b"HTTP/1.1 200 OK\r\n" for line in lines)
    assert gateway.volume.read_bytes()[:BLOCK] == DATA
    # What the agent sends with passes over what it is told.
    assert gateway.put(pack)[0] == 200


def test_a_held_sender_that_leaves_is_let_go(gateway: Gateway) -> None:
    gateway.throttle.change(Bandwidth(limit=0))
    pack = make_pack(DATA)
    sock = begin(gateway, pack, len(pack) - 1)
    deadline = time.monotonic() + 30
    while gateway.throttle._turns.first is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    abandon(sock)
    # It has ended at the gateway as well: nothing is written later.
    assert gateway.throttle._turns.first is None
    assert gateway.volume.read_bytes()[:BLOCK] == b"o" * BLOCK


def test_slow_senders_keep_nobody_out(gateway: Gateway) -> None:
    pack = make_pack(DATA)
    slow = [begin(gateway, pack, len(pack) // 2) for _ in range(2 * PACKS_AT_ONCE)]
    try:
        assert gateway.put(make_pack(DATA, BLOCK))[0] == 200
    finally:
        for sock in slow:
            sock.close()
    assert gateway.volume.read_bytes()[BLOCK : 2 * BLOCK] == DATA
