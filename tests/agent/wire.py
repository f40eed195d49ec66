"""The network between agent and gateway: a TCP proxy that counts and, when told, cuts, stalls, truncates or flips.

It listens at 127.0.0.2. The port that a gateway names for packs leads through it, as it is the same there.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from dataclasses import dataclass, field

AT = "127.0.0.2"


@dataclass
class Fault:
    """Strikes when `at` bytes of packs have passed. `pass`: nothing happens, but the moment is known."""

    kind: str
    at: int
    struck: threading.Event = field(default_factory=threading.Event)


class Wire:
    def __init__(self, seed: int) -> None:
        self.sent = 0
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._flowing = threading.Event()
        self._flowing.set()
        self._ports: dict[int, socket.socket] = {}
        self._leads: dict[int, int] = {}
        self._open: set[socket.socket] = set()

    def carry(self, port: int, to: int, *, packs: bool) -> None:
        """Lead 127.0.0.2:port to 127.0.0.1:to, from now on. `packs`: counted on their way up, and struck by faults."""
        self._leads[port] = to
        if port in self._ports:
            return
        listening = socket.create_server((AT, port))
        self._ports[port] = listening
        threading.Thread(target=self._accept, args=(listening, port, packs), daemon=True).start()

    def arm(self, kind: str, after: int) -> Fault:
        with self._lock:
            self._fault = Fault(kind, self.sent + after)
            return self._fault

    def hold(self) -> None:
        """Stall now."""
        self._flowing.clear()

    def flow(self) -> None:
        """End a stall, and forget a fault that has not struck: nobody would end the stall that it may be."""
        with self._lock:
            self._fault = None
        self._flowing.set()

    def lose(self) -> None:
        """Cut every connection, with all that a stall still holds of it, then flow."""
        self._cut()
        self.flow()

    def close(self) -> None:
        self.flow()
        for listening in self._ports.values():
            listening.close()
        self._cut()

    def _accept(self, listening: socket.socket, port: int, packs: bool) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._leads[port]))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            for source, target, counted in ((client, server, packs), (server, client, False)):
                threading.Thread(target=self._pump, args=(source, target, counted), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        try:
            while piece := source.recv(65536):
                self._flowing.wait()
                if counted and (struck := self._count(len(piece))) is not None:
                    piece = self._strike(struck, bytearray(piece), target)
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            with self._lock:
                self._open -= {source, target}
            for end in (source, target):
                # While the other thread reads from it, close() alone tells the far end nothing.
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def _count(self, count: int) -> Fault | None:
        with self._lock:
            self.sent += count
            if self._fault is None or self.sent < self._fault.at:
                return None
            fault, self._fault = self._fault, None
            return fault

    def _strike(self, fault: Fault, piece: bytearray, target: socket.socket) -> bytes:
        if fault.kind == "cut":
            self._cut()
        elif fault.kind == "stall":
            self._flowing.clear()
        elif fault.kind == "truncate":
            target.sendall(piece[: self._random.randrange(len(piece))])
            target.shutdown(socket.SHUT_RDWR)
        elif fault.kind == "flip":
            piece[self._random.randrange(len(piece))] ^= 1 << self._random.randrange(8)
        fault.struck.set()
        self._flowing.wait()
        return bytes(piece)

    def _cut(self) -> None:
        """Both ends see a reset at once."""
        with self._lock:
            ends, self._open = self._open, set()
        for end in ends:
            try:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it ended by itself meanwhile
