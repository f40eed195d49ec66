"""The data port: packs only, a thread a connection, bodies read straight into reused buffers.

Not the REST server: an event loop hands a body over in small pieces that are copied and collected again,
which costs more than checking and writing them.
"""

from __future__ import annotations

import http.server
import json
import logging
import mmap
import re
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

from wavelift.blocks.errors import BlockError, BlocksNotThere
from wavelift.blocks.pack import MAX_PACK, MAX_RECORD
from wavelift.blocks.throttle import Throttle
from wavelift.gateway.body import ThrottledBody
from wavelift.gateway.ingest import Target, ingest
from wavelift.gateway.volumes import Volumes
from wavelift.service.errors import InvalidRequest, NotFound, WaveliftError, explain
from wavelift.service.rest import bearer_of, error_body
from wavelift.service.tls import Identity
from wavelift.service.tokens import verify

log = logging.getLogger(__name__)

PACKS_AT_ONCE = 8
MAX_CONNECTIONS = 256
# Beyond so many connections those that are idle keep no memory; fresh memory costs a few percent of a pack's time.
KEPT_SCRATCHES = 16
IDLE_SECONDS = 300.0
HANDSHAKE_SECONDS = 20.0
_ROUTE = re.compile(r"^/v1/volumes/([^/]+)/generations/(\d{1,15})/packs/(\d{1,15})$")


class Taken:
    """What became of the packs that came, since the start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused: Counter[str] = Counter()
        self.packs = self.bytes = self.wire_bytes = 0

    def add(self, done: Mapping[str, int | float]) -> None:
        with self._lock:
            self.packs += 1
            self.bytes += int(done["bytes"])
            self.wire_bytes += int(done["wire_bytes"])

    def refuse(self, code: str) -> None:
        with self._lock:
            self._refused[code] += 1

    def refused(self) -> dict[str, int]:
        with self._lock:
            return dict(self._refused)


class DataServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, listener: socket.socket, volumes: Volumes, throttle: Throttle, key: str, identity: Identity | None
    ) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.volumes = volumes
        self.throttle = throttle
        self.key = key
        self._tls = None if identity is None else identity.context()
        self.packs = threading.BoundedSemaphore(PACKS_AT_ONCE)
        self._connections = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._lock = threading.Lock()
        self.taken = Taken()
        self.connections = 0

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    @property
    def packs_received(self) -> int:
        """Packs made durable since the start."""
        return self.taken.packs

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self._connected(1)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            if self._tls is not None:
                # Here and not where connections are accepted: nobody waits for a peer that is slow to shake hands.
                request.settimeout(HANDSHAKE_SECONDS)
                request = self._tls.wrap_socket(request, server_side=True)
            super().process_request_thread(request, client_address)
        except OSError as error:
            log.info("connection from %s: no TLS: %s", client_address, error)
            self.shutdown_request(request)
        finally:
            self._connections.release()
            self._connected(-1)

    def _connected(self, change: int) -> None:
        with self._lock:
            self.connections += change

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.info("connection from %s ended early", client_address, exc_info=True)

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, name="data", daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS
    server: DataServer

    def setup(self) -> None:
        super().setup()
        # Page-aligned, as writes past the page cache need it.
        self._scratch = mmap.mmap(-1, MAX_RECORD)

    def do_PUT(self) -> None:
        body: ThrottledBody | None = None
        try:
            body = ThrottledBody(self.rfile, self._length(), self.connection, self.server.throttle)
            answer: tuple[int, dict[str, Any]] = (200, self._take(body))
        except BlocksNotThere as error:
            answer = (error.status, error_body(error.code, error.message, error.remedy) | {"missing": error.missing})
        except (WaveliftError, BlockError) as error:
            self.server.taken.refuse(error.code)
            answer = (error.status, error_body(error.code, error.message, error.remedy))
        except OSError as error:
            if isinstance(error, ConnectionError | TimeoutError | ssl.SSLError):
                raise
            log.error("%s failed", self.path, exc_info=error)
            answer = (HTTPStatus.INTERNAL_SERVER_ERROR, error_body(*explain(error)))
        if body is None or not body.drain(self._scratch):
            self.close_connection = True
        if self.server.connections > KEPT_SCRATCHES:
            self._scratch.madvise(mmap.MADV_DONTNEED)
        self._answer(*answer)

    def _length(self) -> int:
        value = self.headers.get("content-length", "")
        if not value.isdigit() or int(value) > MAX_PACK:
            raise InvalidRequest(
                f"Content-Length {value!r} is no length of a pack.", f"Send up to {MAX_PACK} bytes with it."
            )
        return int(value)

    def _take(self, body: ThrottledBody) -> dict[str, int | float]:
        claims = verify(self.server.key, bearer_of(self.headers.get("authorization")))
        found = _ROUTE.match(urlsplit(self.path).path)
        if found is None:
            raise NotFound(f"There is no {self.path} here.", "This port takes packs only.")
        target = Target(unquote(found[1]), int(found[2]), int(found[3]))
        with body.working(self.server.packs, claims.migration):
            done = ingest(self.server.volumes, claims, target, body, self._scratch)
        self.server.taken.add(done)
        return done

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n{'Connection: close' if self.close_connection else ''}"
        ).rstrip()
        # One write, so that it leaves as one packet.
        self.wfile.write(f"{head}\r\n\r\n".encode() + data)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)
