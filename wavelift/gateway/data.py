"""The data port: packs only, a thread a connection, bodies read straight into reused buffers.

Not the REST server: an event loop hands a body over in small pieces that are copied and collected again,
which costs more than checking and writing them.
"""

from __future__ import annotations

import http.server
import io
import json
import logging
import mmap
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

from wavelift.blocks.errors import BlockError, BlocksNotThere
from wavelift.blocks.pack import MAX_PACK, MAX_RECORD
from wavelift.blocks.throttle import Throttle
from wavelift.gateway.body import ThrottledBody
from wavelift.gateway.inbound import LINGER_BYTES, Inbound, hang_up
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
# Under a limit of its own a sender may pause in the middle of a pack; whether it is still there the keepalive finds.
PAUSE_SECONDS = 24 * 3600.0
KEEPALIVE = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 20, socket.TCP_KEEPCNT: 6}
# From the connection to the end of its first request's head: until a token was verified, anybody may be there.
FIRST_SECONDS = 20.0
# Those that come when there is no place; so many at a time are told why.
REFUSED_AT_ONCE = 16
REFUSED_SECONDS = 5.0
TELL_FULL_SECONDS = 60.0
FULL = "too_many_connections"
# Senders do not repeat these as they are; what is left of such a pack is not worth its time.
FINAL = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY}
_LENGTH = re.compile(r"[0-9]{1,12}")
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
        self._refused = threading.BoundedSemaphore(REFUSED_AT_ONCE)
        self._tell_full_at = 0.0
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
            self._refuse(request, client_address)
            return
        self._connected(1)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        deadline = time.monotonic() + FIRST_SECONDS
        try:
            request = self._shake_hands(request, FIRST_SECONDS)
            _Handler(request, client_address, self, deadline)
        except OSError as error:
            log.info("connection from %s ended early: %s", client_address, error)
        except Exception:
            log.exception("connection from %s failed", client_address)
        finally:
            self.shutdown_request(request)
            self._connections.release()
            self._connected(-1)

    def _shake_hands(self, request: Any, seconds: float) -> Any:
        """In the connection's own thread: nobody else waits for a peer that is slow to shake hands."""
        request.settimeout(seconds)
        return request if self._tls is None else self._tls.wrap_socket(request, server_side=True)

    def _refuse(self, request: Any, client_address: Any) -> None:
        self.taken.refuse(FULL)
        now = time.monotonic()
        if now >= self._tell_full_at:
            self._tell_full_at = now + TELL_FULL_SECONDS
            log.warning(
                "all %d connections are taken; %d were refused since the start, the last from %s",
                MAX_CONNECTIONS,
                self.taken.refused()[FULL],
                client_address,
            )
        if self._refused.acquire(blocking=False):
            threading.Thread(target=self._say_full, args=(request, client_address), daemon=True).start()
        else:
            self.shutdown_request(request)

    def _say_full(self, request: Any, client_address: Any) -> None:
        try:
            request = self._shake_hands(request, REFUSED_SECONDS)
            body = error_body(FULL, f"All {MAX_CONNECTIONS} connections of the gateway are taken.", "Try again later.")
            request.sendall(_response(HTTPStatus.SERVICE_UNAVAILABLE, body, close=True))
            hang_up(request)
        except OSError as error:
            log.debug("connection from %s, refused: %s", client_address, error)
        finally:
            self.shutdown_request(request)
            self._refused.release()

    def _connected(self, change: int) -> None:
        with self._lock:
            self.connections += change

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, name="data", daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: DataServer

    def __init__(self, request: Any, client_address: Any, server: DataServer, deadline: float = 0.0) -> None:
        self._deadline = deadline
        self._verified = False
        super().__init__(request, client_address, server)

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._inbound = Inbound(self.connection)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            self.connection.setsockopt(socket.IPPROTO_TCP, option, value)
        self.rfile = io.BufferedReader(self._inbound)
        # Page-aligned, as writes past the page cache need it.
        self._scratch = mmap.mmap(-1, MAX_RECORD)

    def handle_one_request(self) -> None:
        self._inbound.head(time.monotonic() + IDLE_SECONDS if self._verified else self._deadline)
        super().handle_one_request()

    def do_PUT(self) -> None:
        body: ThrottledBody | None = None
        self._inbound.body(IDLE_SECONDS)
        try:
            body = ThrottledBody(self.rfile, self._length(), self.connection, self.server.throttle)
            answer: tuple[int, dict[str, Any]] = (200, self._take(body))
        except BlocksNotThere as error:
            answer = (error.status, error_body(error.code, error.message, error.remedy) | {"missing": error.missing})
        except (WaveliftError, BlockError) as error:
            self.server.taken.refuse(error.code)
            answer = (error.status, error_body(error.code, error.message, error.remedy))
        except (ConnectionError, TimeoutError, ssl.SSLError):
            raise
        except Exception as error:
            log.error("%s failed", self.path, exc_info=error)
            self.close_connection = True
            answer = (HTTPStatus.INTERNAL_SERVER_ERROR, error_body(*explain(error)))
        at_most = LINGER_BYTES if answer[0] in FINAL else MAX_PACK
        kept = self._verified and body is not None and body.drain(self._scratch, at_most)
        if self.server.connections > KEPT_SCRATCHES:
            self._scratch.madvise(mmap.MADV_DONTNEED)
        self.close_connection = self.close_connection or not kept
        self.connection.settimeout(IDLE_SECONDS)
        # One write, so that it leaves as one packet.
        self.wfile.write(_response(*answer, close=self.close_connection))
        if self.close_connection:
            hang_up(self.connection)

    def _length(self) -> int:
        value = self.headers.get("content-length", "")
        if not _LENGTH.fullmatch(value) or int(value) > MAX_PACK:
            raise InvalidRequest(
                f"Content-Length {value[:20]!r} is no length of a pack.", f"Send up to {MAX_PACK} bytes with it."
            )
        return int(value)

    def _take(self, body: ThrottledBody) -> dict[str, int | float]:
        claims = verify(self.server.key, bearer_of(self.headers.get("authorization")))
        self._verified = True
        self._inbound.body(PAUSE_SECONDS)
        found = _ROUTE.match(urlsplit(self.path).path)
        if found is None:
            raise NotFound(f"There is no {self.path} here.", "This port takes packs only.")
        target = Target(unquote(found[1]), int(found[2]), int(found[3]))
        with body.working(self.server.packs, claims.migration):
            done = ingest(self.server.volumes, claims, target, body, self._scratch)
        self.server.taken.add(done)
        return done

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


def _response(status: int, body: dict[str, Any], *, close: bool) -> bytes:
    data = json.dumps(body).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n{'Connection: close' if close else ''}"
    ).rstrip()
    return f"{head}\r\n\r\n".encode() + data
