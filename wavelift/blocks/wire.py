"""A pack over a socket, in chunks as the throttles let them go, and with patience for a gateway that holds back."""

from __future__ import annotations

import fcntl
import io
import socket
import ssl
import struct
import termios
import time
from typing import TYPE_CHECKING

from wavelift.blocks.throttle import Flow

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# At a time where nothing limits it: a limit that is set meanwhile is in force after so much.
UNLIMITED_CHUNK = 1 << 20
# How soon a stop is heard while the socket takes nothing.
SLICE_SECONDS = 0.5
# How long the gateway may take to end what it was doing with a pack that is given up.
ABANDON_SECONDS = 10.0
# The answer to a pack that is all sent is worth waiting for after a stop, but not as long as a limit may hold it.
ANSWER_SECONDS = 2.0


def send(sock: socket.socket, data: memoryview, flow: Flow, stall_seconds: float) -> None:
    """Send all of it, plain or over TLS. Raises `Stopped`, OSError; TimeoutError when nothing moved for so long."""
    timeout = sock.gettimeout()
    wait_at_most(sock, socket.SO_SNDTIMEO, min(SLICE_SECONDS, stall_seconds))
    try:
        at = 0
        while at < len(data):
            end = at + flow.take(min(UNLIMITED_CHUNK, len(data) - at))
            while at < end:
                # After a timeout TLS wants the very same bytes again.
                at += _send_some(sock, data[at:end], flow, stall_seconds)
    finally:
        sock.settimeout(timeout)


def abandon(sock: socket.socket) -> None:
    """End a connection in the middle of a pack; on return the other end has taken notice, and writes no more of it.

    One that took no notice for so long is sent a reset, which drops what is still on its way.
    """
    try:
        sock.settimeout(ABANDON_SECONDS)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            continue
    except TimeoutError:
        # The end of what was sent waits behind all that a slow reader has not taken yet.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        # It is gone already, or its fate is the same as that of any connection that is lost.
        return
    finally:
        sock.close()


class Listening(io.RawIOBase):
    """The answer to a pack, for an HTTP library in place of the socket: a stop is heard meanwhile.

    Raises `Stopped`, OSError; TimeoutError when nothing came for so long.
    """

    def __init__(self, sock: socket.socket, flow: Flow, stall_seconds: float) -> None:
        super().__init__()
        self._sock = sock
        self._flow = flow
        self._stall_seconds = stall_seconds

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        since, timeout = time.monotonic(), self._sock.gettimeout()
        self._sock.settimeout(min(SLICE_SECONDS, self._stall_seconds))
        try:
            while True:
                try:
                    return self._sock.recv_into(buffer)
                except TimeoutError:
                    waited = time.monotonic() - since
                    if waited >= ANSWER_SECONDS:
                        self._flow.check()
                    if waited >= self._stall_seconds:
                        raise
        finally:
            self._sock.settimeout(timeout)


def _send_some(sock: socket.socket, data: memoryview, flow: Flow, stall_seconds: float) -> int:
    since, unread = time.monotonic(), 0
    while True:
        try:
            return sock.send(data)
        except (TimeoutError, BlockingIOError):
            flow.check()
            if time.monotonic() - since < stall_seconds:
                continue
            # A gateway with a limit of its own sends an interim answer now and then; it stays unread for now.
            now = _unread(sock)
            if now <= unread:
                raise TimeoutError("the gateway took nothing more") from None
            since, unread = time.monotonic(), now


def wait_at_most(sock: socket.socket, option: int, seconds: float) -> None:
    """For SO_SNDTIMEO or SO_RCVTIMEO. A plain socket then raises BlockingIOError, one over TLS TimeoutError."""
    if isinstance(sock, ssl.SSLSocket):
        sock.settimeout(seconds)
        return
    # The kernel's own time-out: with Python's each wait is a poll, and large pieces go in many small ones.
    sock.settimeout(None)
    whole = int(seconds)
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", whole, int((seconds - whole) * 1e6)))


def _unread(sock: socket.socket) -> int:
    answer: bytes = fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4))
    return int(struct.unpack("i", answer)[0])
