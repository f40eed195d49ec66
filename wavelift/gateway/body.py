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
# Read before it is asked for, so that the fronts of records come with what they follow.
AHEAD = 8 << 10
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
        self._ahead = memoryview(bytearray(AHEAD))
        self._next = self._end = 0
        self._received = 0
        self.taken = 0
        self.waited_seconds = 0.0

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
        wanted = min(len(view), self._length - self.taken)
        got = self._from_ahead(view[:wanted])
        if got < wanted:
            got += self._wait_for(view[got:wanted])
        self.taken += got
        return got

    def drain(self, scratch: mmap.mmap, at_most: int) -> bool:
        """Read the rest, so that another request can follow; false when that is too much, or the sender left."""
        if self._length - self.taken > at_most:
            return False
        while self.taken < self._length:
            if self.readinto(memoryview(scratch)) == 0:
                return False
        return True

    def _from_ahead(self, view: memoryview) -> int:
        count = min(len(view), self._end - self._next)
        view[:count] = self._ahead[self._next : self._next + count]
        self._next += count
        return count

    def _wait_for(self, view: memoryview) -> int:
        began = time.monotonic()
        if self._places is not None:
            self._places.release()
        try:
            got = self._fill(view) if len(view) > AHEAD else self._fill_ahead(view)
        finally:
            if self._places is not None:
                self._places.acquire()
        self.waited_seconds += time.monotonic() - began
        # What a sender gave up is still in the socket's buffer, and must not be written once it was told otherwise.
        self._require_sender()
        return got

    def _fill(self, view: memoryview) -> int:
        filled = 0
        while filled < len(view):
            count = self._flow.take(len(view) - filled)
            # A BufferedReader fills the whole view, large ones without a detour through its own buffer.
            got = self._stream.readinto(view[filled : filled + count])
            self._received += got
            filled += got
            if got < count:
                break
        return filled

    def _fill_ahead(self, view: memoryview) -> int:
        filled = 0
        while filled < len(view):
            count = self._flow.take(min(AHEAD, self._length - self._received))
            got = self._stream.readinto1(self._ahead[:count])
            if got == 0:
                break
            self._received += got
            self._next, self._end = 0, got
            filled += self._from_ahead(view[filled:])
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
