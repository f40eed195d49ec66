"""Where packs go. A sink belongs to one worker: one connection, one pack under way."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable
from urllib.parse import quote, urlsplit

from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.blocks.errors import BlocksNotThere, SinkError, SinkUnauthorized, SinkUnreachable, WrongGateway
from wavelift.blocks.handshake import require_reader
from wavelift.blocks.meter import WireMeter
from wavelift.blocks.throttle import Flow, Stopped
from wavelift.blocks.wire import Listening, abandon, send
from wavelift.pinning import WrongCertificate, pinned_context

GIVE_UP_SECONDS = 120.0
REPLY_SECONDS = 60.0
# For the answer of a gateway that ended a connection in the middle of a pack: it is here, or never comes.
EARLY_SECONDS = 2.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 3.0
# A pack damaged on its way is sent again; one damaged before that fails each time.
CORRUPT_TRIES = 3

Credential = Callable[[], SinkDescriptor]


@dataclass(frozen=True)
class Receipt:
    """What the receiver made durable: blocks, bytes of disk, bytes of pack. `link_seconds` the pack was on its way,
    throttles included; what the receiver took to check and write it is not of the link."""

    blocks: int
    bytes: int
    wire_bytes: int
    link_seconds: float


class Sink(Protocol):
    @property
    def takes_copies(self) -> bool:
        """Whether it has a volume to copy blocks from, and copying there is cheaper than sending."""

    def put(self, sequence: int, pack: memoryview) -> Receipt:
        """Deliver a pack; returns once it is durable. Raises `SinkError` and its kinds, among them `BlocksNotThere`."""

    def close(self) -> None: ...


@runtime_checkable
class Pausable(Protocol):
    """A sink whose packs may have to wait until somebody, or a window of time, lets them go."""

    @property
    def paused(self) -> bool: ...


class GatewaySink:
    """Packs as PUTs over one kept-alive connection; a lost connection is retried with growing pauses."""

    takes_copies = True

    def __init__(
        self,
        descriptor: Credential,
        stop: threading.Event,
        give_up_seconds: float = GIVE_UP_SECONDS,
        meter: WireMeter | None = None,
        flow: Flow | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._stop = stop
        self._give_up = give_up_seconds
        self._flow = flow or Flow("")
        self._meter = meter or WireMeter()
        self._connection: http.client.HTTPConnection | None = None
        self._peer = ""

    def put(self, sequence: int, pack: memoryview) -> Receipt:
        deadline: float | None = None
        pause = FIRST_PAUSE_SECONDS
        corrupt = 0
        while True:
            descriptor = self._descriptor()
            try:
                connection = self._connected(descriptor)
                began = time.monotonic()
                status, body = self._exchange(connection, descriptor, sequence, pack)
            except Stopped:
                self._abandon()
                raise
            except WrongCertificate as error:
                self.close()
                raise WrongGateway(descriptor.url, error.pinned, error.shown) from None
            except (OSError, http.client.HTTPException) as error:
                self.close()
                failure: SinkError = SinkUnreachable(
                    f"The gateway at {descriptor.url} cannot be reached: {type(error).__name__} {error}.",
                    "Check that it runs; the copy goes on from here when it is submitted again.",
                )
                self._meter.failed(failure.code)
            else:
                if status == 200:
                    self._meter.delivered()
                    link = max(0.0, time.monotonic() - began - float(body["busy_seconds"]))
                    return Receipt(int(body["blocks"]), int(body["bytes"]), int(body["wire_bytes"]), link)
                failure = refusal(descriptor, status, body)
                self._meter.failed(failure.code)
                corrupt += failure.code == "corrupt"
                renewed = self._descriptor().token != descriptor.token
                again = status >= 500 or (status == 401 and renewed) or 0 < corrupt < CORRUPT_TRIES
                if not again:
                    raise failure
            # From the first failure on, and not counting what a limit held back: that is nobody's failure.
            elapsed = time.monotonic() - self._flow.held_seconds
            deadline = elapsed + self._give_up if deadline is None else deadline
            if elapsed + pause > deadline or self._stop.wait(pause):
                raise failure
            self._meter.again()
            pause = min(LONGEST_PAUSE_SECONDS, pause * 2)

    @property
    def paused(self) -> bool:
        return self._flow.now().limit == 0

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._meter.connected(-1)

    def _abandon(self) -> None:
        if self._connection is not None and self._connection.sock is not None:
            abandon(self._connection.sock)
        self.close()

    def _connected(self, descriptor: SinkDescriptor) -> http.client.HTTPConnection:
        if self._peer != descriptor.peer:
            # A resubmission named another gateway, or another certificate: what is open is not with that one.
            self.close()
        if self._connection is None:
            self._connection = _connect(descriptor)
            self._peer = descriptor.peer
            self._connection.response_class = _answers(self._flow)
            self._meter.connected(1)
        return self._connection

    def _exchange(
        self, connection: http.client.HTTPConnection, descriptor: SinkDescriptor, sequence: int, pack: memoryview
    ) -> tuple[int, dict[str, Any]]:
        path = f"/v1/volumes/{quote(descriptor.volume, safe='')}/generations/{descriptor.generation}/packs/{sequence}"
        headers = {
            "Authorization": f"Bearer {descriptor.token}",
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(pack)),
        }
        connection.request("PUT", path, headers=headers)
        try:
            send(connection.sock, pack, self._flow, REPLY_SECONDS)
        except TimeoutError:
            raise
        except OSError as error:
            return _early(connection, error)
        return answer_of(connection.getresponse())


def _answers(flow: Flow) -> type[http.client.HTTPResponse]:
    class Answer(http.client.HTTPResponse):
        def __init__(self, sock: Any, *args: Any, **more: Any) -> None:
            heard: Any = Listening(sock, flow, sock.gettimeout())
            super().__init__(heard, *args, **more)

    return Answer


def _early(connection: http.client.HTTPConnection, lost: OSError) -> tuple[int, dict[str, Any]]:
    """The answer of a gateway that refused a pack before it had all of it. Raises `lost` if there is none."""
    try:
        connection.sock.settimeout(EARLY_SECONDS)
        return answer_of(connection.getresponse())
    except (OSError, http.client.HTTPException):
        raise lost from None


def open_sink(
    descriptor: SinkDescriptor | Credential,
    stop: threading.Event | None = None,
    give_up_seconds: float = GIVE_UP_SECONDS,
    meter: WireMeter | None = None,
    flow: Flow | None = None,
) -> Sink:
    """A sink for one worker. A callable is asked before each pack, so that a renewed token is used.

    `stop` ends the pauses between retries; `give_up_seconds` bounds them for one pack; `meter` counts
    what becomes of the packs; `flow` is its way through the throttles.
    """
    if isinstance(descriptor, SinkDescriptor):
        fixed = descriptor
        return GatewaySink(lambda: fixed, stop or threading.Event(), give_up_seconds, meter, flow)
    return GatewaySink(descriptor, stop or threading.Event(), give_up_seconds, meter, flow)


def _connect(descriptor: SinkDescriptor) -> http.client.HTTPConnection:
    """A connection to the gateway's data port, which its health names: it may change with a restart."""
    control = connect_control(descriptor)
    try:
        control.request("GET", "/v1/health")
        _, health = answer_of(control.getresponse())
        port, reads = int(health["data_port"]), dict(health["packs"])
    except (KeyError, TypeError, ValueError):
        raise SinkError(f"{descriptor.url} is not a Wavelift gateway.", "Check the address of the sink.") from None
    finally:
        control.close()
    require_reader(reads)
    return _open(descriptor, port)


def connect_control(descriptor: SinkDescriptor) -> http.client.HTTPConnection:
    """A connection to the gateway's control port."""
    parts = urlsplit(descriptor.url)
    return _open(descriptor, parts.port or (443 if parts.scheme == "https" else 80))


def _open(descriptor: SinkDescriptor, port: int) -> http.client.HTTPConnection:
    parts = urlsplit(descriptor.url)
    host = parts.hostname or ""
    # http.client itself sets TCP_NODELAY.
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=REPLY_SECONDS)
    tls = pinned_context(descriptor.fingerprint)
    return http.client.HTTPSConnection(host, port, timeout=REPLY_SECONDS, context=tls)


def answer_of(response: http.client.HTTPResponse) -> tuple[int, dict[str, Any]]:
    """Status and JSON body. Raises HTTPException for something that is none of ours."""
    raw = response.read()
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise http.client.HTTPException(f"status {response.status} without a JSON body")
    return response.status, body


def refusal(descriptor: SinkDescriptor, status: int, body: dict[str, Any]) -> SinkError:
    """What an answer other than 200 means."""
    error = body.get("error", {})
    code, message = str(error.get("code", "sink_refused")), str(error.get("message", f"Status {status}."))
    remedy = str(error.get("remedy", ""))
    if status in (401, 403):
        return SinkUnauthorized(
            f"The gateway at {descriptor.url} refused the write token for volume {descriptor.volume}: {message}",
            "Submit the job again with a fresh token that names this volume.",
        )
    if code == BlocksNotThere.default_code:
        return BlocksNotThere(descriptor.volume, [(int(offset), int(length)) for offset, length in body["missing"]])
    return SinkError(message, remedy, code=code)
