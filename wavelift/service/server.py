"""Runs a service's app under uvicorn and says on stdout, as one JSON line, where it listens."""

from __future__ import annotations

import json
import logging
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from wavelift.service.errors import InvalidRequest

MIN_SECRET_BYTES = 16


def listen(address: str) -> socket.socket:
    """A listening socket for HOST:PORT (port 0 picks a free one). Raises `InvalidRequest`, OSError."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit():
        raise InvalidRequest(f"{address!r} is not HOST:PORT.", "Write for example 127.0.0.1:8443.")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.create_server((host, int(port)), family=family, backlog=256)
    # Inherited by accepted connections: small answers must not wait for Nagle's algorithm.
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server


def url_of(server: socket.socket) -> str:
    host, port = server.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def read_secret(path: Path) -> str:
    """The secret a file holds, stripped. Raises `InvalidRequest` when missing or too short."""
    try:
        secret = path.read_text().strip()
    except OSError as error:
        raise InvalidRequest(
            f"The secret file {path} cannot be read: {error.strerror}.", "Create it with mode 600."
        ) from None
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise InvalidRequest(
            f"The secret in {path} has fewer than {MIN_SECRET_BYTES} bytes.",
            "Make one: `openssl rand -hex 32`.",
        )
    return secret


def configure_logging() -> None:
    """Log to stderr; stdout belongs to the line that says where the service listens."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")


def serve(service: str, app: FastAPI, server: socket.socket, stop: Callable[[], None]) -> int:
    """Serve until SIGTERM or SIGINT, then call `stop`. Returns the exit status."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=3,
        loop="asyncio",
        lifespan="off",
    )
    print(json.dumps({"service": service, "url": url_of(server)}), flush=True)
    try:
        uvicorn.Server(config).run(sockets=[server])
    finally:
        stop()
    return 0
