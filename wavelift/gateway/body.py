"""The body of a request at the data port: read no faster than the gateway's limit lets it."""

from __future__ import annotations

import io
import mmap
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from wavelift.blocks.throttle import Flow, Throttle

# Well under what a sender waits for a sign of life.
TELL_SECONDS = 20.0
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


class ThrottledBody:
    """`length` bytes; they count for nobody in particular until `working` says for whom."""

    def __init__(self, stream: io.BufferedIOBase, length: int, connection: socket.socket, throttle: Throttle) -> None:
        self._stream = stream
        self._length = length
        self._connection = connection
        self._flow = Flow("", [throttle], self._still_held)
        self._left = select.poll()
        self._left.register(connection, select.POLLRDHUP)
        self._writable = select.poll()
        self._writable.register(connection, select.POLLOUT)
        self._told = time.monotonic()
        self._places: threading.Semaphore | None = None
        self.taken = 0

    @contextmanager
    def working(self, places: threading.Semaphore, lane: str) -> Iterator[None]:
        """Holds a place, but for the time in which bytes are waited for: slow senders keep nobody out."""
        self._flow.lane = lane
        with places:
            self._places = places
            try:
                yield
            finally:
                self._places = None

    def readinto(self, view: memoryview) -> int:
        """Fills the view, or what is left of the body. Raises OSError, also when the sender has left meanwhile."""
        if self._places is None:
            return self._fill(view)
        self._places.release()
        try:
            return self._fill(view)
        finally:
            self._places.acquire()

    def drain(self, scratch: mmap.mmap, at_most: int) -> bool:
        """Read the rest, so that another request can follow; false when that is too much, or the sender left."""
        if self._length - self.taken > at_most:
            return False
        while self.taken < self._length:
            if self.readinto(memoryview(scratch)) == 0:
                return False
        return True

    def _fill(self, view: memoryview) -> int:
        wanted = min(len(view), self._length - self.taken)
        filled = 0
        while filled < wanted:
            count = self._flow.take(wanted - filled)
            # A BufferedReader fills the whole view, large ones without a detour through its own buffer.
            got = self._stream.readinto(view[filled : filled + count])
            filled += got
            self.taken += got
            if got < count:
                break
        # What a sender gave up is still in the socket's buffer, and must not be written once it was told otherwise.
        self._require_sender()
        return filled

    def _still_held(self) -> bool:
        """Asked while the limit holds the body back: the sender is told that it is waited for, and must be there."""
        self._require_sender()
        if time.monotonic() - self._told >= TELL_SECONDS:
            self._told = time.monotonic()
            # Everybody's throttle waits for this: never for a sender that does not read what it is told.
            if any(event & select.POLLOUT for _, event in self._writable.poll(0)):
                self._connection.sendall(INTERIM)
        return False

    def _require_sender(self) -> None:
        if self._left.poll(0):
            raise ConnectionResetError("the sender left in the middle of a pack")
