"""How slowly the data port reads, what it tells those it holds back, and whom they keep out."""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wavelift.blocks import sink as sink_module
from wavelift.blocks import wire
from wavelift.blocks.bandwidth import Bandwidth
from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.blocks.digest import BLOCK
from wavelift.blocks.errors import SinkUnauthorized
from wavelift.blocks.sink import open_sink
from wavelift.blocks.throttle import Stopped, Throttle
from wavelift.blocks.wire import abandon
from wavelift.gateway import body, data
from wavelift.gateway.data import PACKS_AT_ONCE
from wavelift.gateway.inbound import Inbound
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


def until_held(gateway: Gateway) -> None:
    deadline = time.monotonic() + 30
    while gateway.throttle._turns.first is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("blocks", [1, 48])
def test_after_a_stop_nothing_more_is_written_whether_all_was_sent_or_not(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    """One block fits into the sockets' buffers, so that the sender waits for the answer; three MiB do not."""
    monkeypatch.setattr(wire, "ABANDON_SECONDS", 0.5)
    monkeypatch.setattr(wire, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(wire, "SLICE_SECONDS", 0.1)
    monkeypatch.setattr(sink_module, "_connect", lambda _: gateway.connect())
    gateway.throttle.change(Bandwidth(limit=0))
    token = tokens.issue(KEY, migration="web", scope="write", volumes=["d-v1"], lifetime=60)
    descriptor = SinkDescriptor(url="http://gateway", volume="d-v1", generation=1, token=token)
    stop = threading.Event()
    sink = open_sink(descriptor, stop, flow=sink_module.Flow("", [], stop.is_set))
    ended: list[BaseException] = []

    def put() -> None:
        try:
            sink.put(1, memoryview(make_pack(os.urandom(blocks * BLOCK))))
        except Stopped as error:
            ended.append(error)

    sender = threading.Thread(target=put)
    sender.start()
    until_held(gateway)
    stop.set()
    sender.join(20)
    assert len(ended) == 1
    gateway.throttle.change(Bandwidth())
    # Its turn has ended: a verification need not wait for it.
    assert (
        gateway.put(make_pack(DATA, 3 * BLOCK, generation=2), path="/v1/volumes/d-v1/generations/2/packs/1")[0] == 200
    )
    assert gateway.volume.read_bytes()[: 3 * BLOCK] == b"o" * 3 * BLOCK


def test_what_a_sender_gave_up_is_not_taken_from_the_buffer() -> None:
    ours, theirs = socket.socketpair()
    with theirs, theirs.makefile("rb") as stream:
        ours.sendall(bytes(10))
        ours.close()
        with pytest.raises(ConnectionResetError):
            body.ThrottledBody(stream, 10, theirs, Throttle()).readinto(memoryview(bytearray(10)))


def test_strangers_take_nothing_of_the_limit_and_read_why(gateway: Gateway) -> None:
    gateway.throttle.change(Bandwidth(limit=0))
    with gateway.dial() as stranger:
        stranger.sendall(b"PUT /x HTTP/1.1\r\nContent-Length: 200000000\r\n\r\n" + bytes(32 << 10))
        answer = http.client.HTTPResponse(stranger)
        answer.begin()
        assert answer.status == 401 and answer.getheader("Connection") == "close" and b"bearer token" in answer.read()
    assert gateway.throttle._turns.first is None and gateway.throttle.waited_seconds == 0


@pytest.mark.parametrize("lifetime", [60, -5])
def test_a_pack_that_is_refused_before_all_of_it_was_sent_says_why(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, lifetime: int
) -> None:
    monkeypatch.setattr(sink_module, "_connect", lambda _: gateway.connect())
    token = tokens.issue(KEY, migration="web", scope="write", volumes=["d-other"], lifetime=lifetime)
    descriptor = SinkDescriptor(url="http://gateway", volume="d-v1", generation=1, token=token)
    sink = open_sink(descriptor, give_up_seconds=0)
    with pytest.raises(SinkUnauthorized):
        sink.put(1, memoryview(make_pack(os.urandom(60 * BLOCK)) * 16))
    sink.close()


def test_the_limit_does_not_wait_for_a_sender_that_reads_nothing(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "TELL_SECONDS", 0.0)
    ours, theirs = socket.socketpair()
    with ours, theirs, theirs.makefile("rb") as stream:
        theirs.settimeout(3)
        gateway.throttle.change(Bandwidth(limit=0))
        held = body.ThrottledBody(stream, 10, theirs, gateway.throttle)
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            while theirs.send(body.INTERIM):
                continue
        theirs.settimeout(20)
        # Before, this raised TimeoutError once the sender had read nothing for so long.
        reader = threading.Thread(target=held.readinto, args=(memoryview(bytearray(10)),))
        reader.start()
        until_held(gateway)
        gateway.throttle.change(Bandwidth())
        ours.sendall(bytes(10))
        reader.join(10)
        assert not reader.is_alive() and held.taken == 10


def test_a_sender_may_pause_in_the_middle_of_a_pack(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "IDLE_SECONDS", 0.2)
    pack = make_pack(DATA)
    with begin(gateway, pack, len(pack) // 2) as sock:
        time.sleep(0.6)
        sock.sendall(pack[len(pack) // 2 :])
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        assert answer.status == 200
    assert gateway.volume.read_bytes()[:BLOCK] == DATA


def test_a_body_that_never_comes_ends_in_time() -> None:
    """Also after less than a second, which the kernel's time-out once was rounded down to never."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inbound = Inbound(theirs)
        inbound.body(0.2)
        with pytest.raises(TimeoutError):
            inbound.readinto(bytearray(100_000))
