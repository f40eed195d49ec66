"""Who may keep a connection to a service, which anybody can reach before saying who they are.

So many at a time, and each has a while for the next whole request: what runs in an event loop has no limits of its own.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import time
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

# With the gateway's data port less than 1024, which some systems give a process at the most.
MAX_CONNECTIONS = 400
# From the connection, or the answer before, to the end of a request; the handshake is part of it.
REQUEST_SECONDS = 20.0
TELL_SECONDS = 60.0
MAX_FILES = 1 << 16

Peer = tuple[str, int]


def allow_many_files() -> None:
    """As many open files as the system lets this process have; beyond, nothing can be accepted or opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Not a billion: some programs started from here go through all of them.
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Gate(socket.socket):
    """A listening socket for one event loop, in place of the given one."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(fileno=listening.detach())
        self._due: dict[Peer, tuple[socket.socket, asyncio.TimerHandle]] = {}
        self._refused = 0
        self._tell_at = 0.0

    def accept(self) -> tuple[socket.socket, Any]:
        """Raises ConnectionAbortedError, which an event loop passes over, when there is no place."""
        accepted, address = super().accept()
        if len(self._due) >= MAX_CONNECTIONS:
            accepted.close()
            self._refuse(address)
            raise ConnectionAbortedError("all connections are taken")
        peer: Peer = address[:2]
        connection = _Passed(accepted, lambda: self._left(peer))
        self._due[peer] = connection, self._later(connection)
        return connection, address

    def asked(self, peer: Peer) -> None:
        """A whole request of theirs is here."""
        if peer in self._due:
            self._due[peer][1].cancel()

    def answered(self, peer: Peer) -> None:
        if peer in self._due:
            connection, timer = self._due[peer]
            timer.cancel()
            self._due[peer] = connection, self._later(connection)

    def _later(self, connection: socket.socket) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(REQUEST_SECONDS, _end, connection)

    def _left(self, peer: Peer) -> None:
        if peer in self._due:
            self._due.pop(peer)[1].cancel()

    def _refuse(self, address: Any) -> None:
        self._refused += 1
        now = time.monotonic()
        if now >= self._tell_at:
            self._tell_at = now + TELL_SECONDS
            log.warning(
                "all %d connections are taken; %d were refused since the start, the last from %s",
                MAX_CONNECTIONS,
                self._refused,
                address,
            )


class _Passed(socket.socket):
    def __init__(self, accepted: socket.socket, left: Callable[[], None]) -> None:
        super().__init__(fileno=accepted.detach())
        self._tell = left

    def close(self) -> None:
        super().close()
        self._tell()


def _end(connection: socket.socket) -> None:
    try:
        # The loop sees that the peer has left, and closes it.
        connection.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        log.debug("a connection that asked for nothing ended by itself: %s", error)


class Watched:
    """The app behind a gate, which it tells of whole requests and of answers."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # None of a peer that has left already.
        peer: Peer = tuple(scope["client"] or ("", 0))
        if not {b"content-length", b"transfer-encoding"} & {name for name, _ in scope["headers"]}:
            self._gate.asked(peer)

        async def received() -> Message:
            message = await receive()
            if not message.get("more_body"):
                self._gate.asked(peer)
            return message

        async def sent(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._gate.answered(peer)

        await self._app(scope, received, sent)
