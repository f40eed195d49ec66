"""What comes in on a connection of the data port: heads bounded in time and size, bodies as they come."""

from __future__ import annotations

import io
import logging
import socket
import ssl
import time
from typing import TYPE_CHECKING

from wavelift.blocks.wire import wait_at_most

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logging.getLogger(__name__)

# Ours have some hundred bytes, most of them the token. What was read ahead of the body counts, too.
MAX_HEAD = (16 << 10) + io.DEFAULT_BUFFER_SIZE
# Of a request that is refused: how much of it, and for how long, is taken so that the answer can be read.
LINGER_BYTES = 128 << 10
LINGER_SECONDS = 1.0


class HeadTooLong(ConnectionError):
    """The peer sent more than any head of ours has."""


class Inbound(io.RawIOBase):
    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self._plain = not isinstance(connection, ssl.SSLSocket)
        self._deadline: float | None = None
        self._left = 0

    def head(self, deadline: float) -> None:
        """A head follows; all of it is to be there by the deadline (monotonic)."""
        self._deadline, self._left = deadline, MAX_HEAD

    def body(self, seconds: float) -> None:
        """A body follows, with pauses up to so long."""
        self._deadline = None
        wait_at_most(self._connection, socket.SO_RCVTIMEO, seconds)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Raises OSError; TimeoutError and `HeadTooLong` for what goes beyond the bounds."""
        if self._deadline is None:
            return self._of_body(memoryview(buffer))
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no whole request came in time")
        self._connection.settimeout(left)
        got = self._connection.recv_into(buffer)
        self._left -= got
        if self._left < 0:
            raise HeadTooLong("the head of the request is too long")
        return got

    def _of_body(self, view: memoryview) -> int:
        # A BufferedReader asks for more than its own buffer holds only where all of it is wanted.
        whole = self._plain and len(view) > io.DEFAULT_BUFFER_SIZE
        try:
            return self._connection.recv_into(view, 0, socket.MSG_WAITALL if whole else 0)
        except BlockingIOError:
            raise TimeoutError("nothing more came of a request") from None


def hang_up(connection: socket.socket) -> None:
    """After an answer to a request that was not read: closed at once, a reset would overtake the answer."""
    deadline = time.monotonic() + LINGER_SECONDS
    left = LINGER_BYTES
    try:
        connection.shutdown(socket.SHUT_WR)
        while left > 0 and (patience := deadline - time.monotonic()) > 0:
            connection.settimeout(patience)
            got = len(connection.recv(left))
            if got == 0:
                return
            left -= got
    except OSError as error:
        log.debug("a peer that was refused left: %s", error)
