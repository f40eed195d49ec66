"""Runs a service's app under uvicorn and says on stdout, as one JSON line, where it listens."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from wavelift.service.errors import InvalidRequest
from wavelift.service.gate import Gate, Watched, allow_many_files
from wavelift.service.tls import Identity

log = logging.getLogger(__name__)

MIN_SECRET_BYTES = 16


def listen(address: str) -> socket.socket:
    """A listening socket for HOST:PORT (port 0 picks a free one). Raises `InvalidRequest`."""
    host, separator, port = address.rpartition(":")
    if not separator or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise InvalidRequest(f"{address!r} is not HOST:PORT.", "Write for example 127.0.0.1:8443.")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        server = socket.create_server((host, int(port)), family=family, backlog=256)
    except OSError as error:
        raise InvalidRequest(
            f"It is not possible to listen at {address}: {error.strerror}.",
            "Name an address of this machine (0.0.0.0: all of them) and a port that is free (0: any).",
        ) from None
    # Inherited by accepted connections: small answers must not wait for Nagle's algorithm.
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server


def url_of(server: socket.socket, identity: Identity | None) -> str:
    scheme = "http" if identity is None else "https"
    host, port = server.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def read_secret(path: Path) -> str:
    """The secret a file holds, stripped. Raises `InvalidRequest` when missing or too short."""
    try:
        secret = path.read_text().strip()
    except OSError as error:
        raise InvalidRequest(
            f"The secret file {path} cannot be read: {error.strerror}.", "Create it with mode 600."
        ) from None
    except UnicodeDecodeError:
        raise InvalidRequest(f"The secret in {path} is not text.", "Make one: `openssl rand -hex 32`.") from None
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise InvalidRequest(
            f"The secret in {path} has fewer than {MIN_SECRET_BYTES} bytes.",
            "Make one: `openssl rand -hex 32`.",
        )
    return secret


def add_metrics_token(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metrics-token-file", type=Path, metavar="FILE", help="a secret that is good for GET /metrics only"
    )


def add_plaintext(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plaintext", action="store_true", help="no TLS; only where the link itself is encrypted, or to measure"
    )


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            # Between two requests, over TLS, the end would wait for the other side to take its leave.
            if connection.cycle is None or connection.cycle.response_complete:  # type: ignore[union-attr]
                connection.transport.abort()
        await super().shutdown(sockets)


def make_server(app: ASGIApp, identity: Identity | None) -> uvicorn.Server:
    """A server that speaks TLS as `identity`; with None it does not."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        # Its own would bypass ours.
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=3,
        loop="asyncio",
        lifespan="off",
    )
    config.load()
    if identity is not None:
        # Not by its ssl_* settings: they know neither the oldest version nor the tickets of a context.
        config.ssl = identity.context()
    return _Server(config)


def serve(
    service: str, app: ASGIApp, server: socket.socket, stop: Callable[[], None], identity: Identity | None
) -> int:
    """Serve until SIGTERM or SIGINT, then call `stop`. Returns the exit status."""
    if identity is None:
        log.warning("PLAINTEXT: whoever can read this network can read the disks and the tokens sent over it")
    allow_many_files()
    gate = Gate(server)
    running = make_server(Watched(app, gate), identity)
    # It puts back what it finds here and raises the signal once more: by default that would end the process before
    # `stop`. Its own handler also keeps a signal that comes before it runs.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, running.handle_exit)
    line = {"service": service, "url": url_of(gate, identity)}
    print(json.dumps(line if identity is None else {**line, "fingerprint": identity.fingerprint}), flush=True)
    try:
        running.run(sockets=[gate])
    finally:
        stop()
    return 0
