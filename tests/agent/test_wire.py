"""The network of the other tests does what it is told, and nothing later."""

from __future__ import annotations

import socket
import time

import pytest

from .wire import AT, Wire


@pytest.mark.parametrize("kind", ["cut", "stall", "truncate", "flip"])
def test_a_fault_that_did_not_strike_in_time_never_does(kind: str) -> None:
    wire = Wire(0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
        wire.carry(port, port, packs=True)
        with socket.create_connection((AT, port), timeout=20) as sender:
            receiver, _ = server.accept()
            with receiver:
                receiver.settimeout(20)
                fault = wire.arm(kind, 10)
                sender.sendall(b"before")
                assert receiver.recv(6, socket.MSG_WAITALL) == b"before"
                wire.flow()
                sender.sendall(b"long after it")
                assert receiver.recv(13, socket.MSG_WAITALL) == b"long after it"
                assert not fault.struck.is_set()
    wire.close()


def test_a_server_that_resets_a_connection_ends_it_for_the_client() -> None:
    wire = Wire(0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
        wire.carry(port, port, packs=True)
        with socket.create_connection((AT, port), timeout=20) as sender:
            receiver, _ = server.accept()
            sender.sendall(b"x")
            assert receiver.recv(1, socket.MSG_PEEK) == b"x"
            time.sleep(0.2)  # until the wire waits for more
            receiver.close()  # with a byte unread: a reset
            assert sender.recv(1) == b""
    wire.close()
