"""Checks pass only on what the machine shows, and see when there is no hope left."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from operators.checks import evaluate, tail
from wavelift.manifest.schema import Check


@contextmanager
def listening(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port on 127.0.0.1 whose connections are given to `handle`, then closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                handle(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_a_console_line_is_found_between_control_sequences() -> None:
    outcome = evaluate([Check(console="DEMO-READY")], "\x1b[2J\x1b[32mDEMO-READY web\x1b[0m\r\nlogin: ", "")
    assert outcome.passed
    assert outcome.results[0].evidence == "DEMO-READY web"


@pytest.mark.parametrize(
    "line",
    [
        "Kernel panic - not syncing: VFS: Unable to mount root fs",
        "(initramfs) ",
        "You are in emergency mode. After logging in",
        "grub rescue> ",
        "No bootable device.",
    ],
)
def test_a_machine_beyond_hope_is_seen_even_when_the_marker_was_printed(line: str) -> None:
    outcome = evaluate([Check(console="READY")], f"READY\r\nfoo\r\n{line}", "")
    assert not outcome.passed
    assert outcome.hopeless.strip() == line.strip()


def test_ports_are_not_tried_before_the_console_is_ready() -> None:
    outcome = evaluate([Check(console="READY"), Check(tcp=1)], "booting", "127.0.0.1")
    assert [result.evidence for result in outcome.results] == ["not seen", "not tried, still booting"]


def test_a_port_that_greets_passes() -> None:
    with listening(lambda connection: connection.sendall(b"SSH-2.0-x\r\n")) as port:
        outcome = evaluate([Check(tcp=port)], "", "127.0.0.1")
    assert outcome.passed
    assert outcome.results[0].evidence.endswith("greeted: SSH-2.0-x")


def test_a_port_that_reacts_to_bytes_passes() -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(64)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")

    with listening(answer) as port:
        outcome = evaluate([Check(tcp=port)], "", "127.0.0.1")
    assert outcome.results[0].evidence.endswith("answered: HTTP/1.0 200 OK")
    assert outcome.passed


def test_a_port_that_only_accepts_does_not_pass() -> None:
    """A user-mode network or a load balancer accepts for a machine that is dead."""
    released = threading.Event()

    def swallow(connection: socket.socket) -> None:
        connection.recv(64)
        released.wait(8)

    with listening(swallow) as port:
        outcome = evaluate([Check(tcp=port)], "", "127.0.0.1")
        released.set()
    assert not outcome.passed


def test_a_port_that_closes_at_once_or_refuses_does_not_pass() -> None:
    with listening(lambda connection: None) as port:
        assert not evaluate([Check(tcp=port)], "", "127.0.0.1").passed
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    assert not evaluate([Check(tcp=free)], "", "127.0.0.1").passed


def test_tail_keeps_the_last_lines_with_text() -> None:
    assert tail("a\r\n\r\nb\r\n\x1b[0m\r\nc", 2) == "b\nc"
