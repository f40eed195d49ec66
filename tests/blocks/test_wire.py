"""Chunks over a real socket: patience with a gateway that shows life, none with one that does not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from wavelift.blocks import wire
from wavelift.blocks.bandwidth import Bandwidth
from wavelift.blocks.throttle import Flow, Stopped, Throttle
from wavelift.blocks.wire import abandon, send

PACK = memoryview(bytes(range(256)) * (32 << 10))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    theirs.settimeout(60)
    yield ours, theirs
    ours.close()
    theirs.close()


def received(sock: socket.socket, count: int) -> bytes:
    with sock.makefile("rb") as file:
        return file.read(count)


def test_all_of_it_arrives_and_the_timeout_is_as_before(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    sender = threading.Thread(target=send, args=(ours, PACK, Flow("", [Throttle(Bandwidth(limit=10**9))]), 60))
    sender.start()
    assert received(theirs, len(PACK)) == PACK
    sender.join()
    assert ours.gettimeout() == 60


def test_nothing_moves_and_nobody_shows_life(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(TimeoutError):
        send(pair[0], PACK, Flow(""), 0.05)


def test_nothing_moves_but_the_gateway_shows_life(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    looks = 0

    def alive() -> bool:
        # Asked after each slice in which nothing moved; after some the gateway reads on.
        nonlocal looks
        looks += 1
        if looks <= 5:
            theirs.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if looks == 5:
            reader.start()
        return False

    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(received(theirs, len(PACK))))
    send(ours, PACK, Flow("", stopped=alive), 0.02)
    reader.join()
    assert got == [PACK] and looks >= 5


def test_a_stop_is_heard_while_nothing_moves(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(Stopped):
        send(pair[0], PACK, Flow("", stopped=lambda: True), 60)


def test_who_abandons_a_pack_waits_until_the_other_end_has_noticed(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ours.sendall(b"half a pack")
    noticed: list[bytes] = []

    def gateway() -> None:
        noticed.append(received(theirs, 100))
        theirs.close()

    other = threading.Thread(target=gateway)
    other.start()
    abandon(ours)
    assert noticed == [b"half a pack"] and ours.fileno() == -1
    other.join()


def test_a_reader_too_slow_to_notice_is_sent_a_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "ABANDON_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with theirs:
        ours.settimeout(0.5)
        with pytest.raises(TimeoutError):
            ours.sendall(bytes(64 << 20))
        abandon(ours)
        theirs.settimeout(20)
        with pytest.raises(ConnectionResetError):
            while theirs.recv(1 << 20):
                continue
