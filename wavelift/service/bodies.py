"""Whose bodies are read, and how large they may be: both are known before they are held in memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wavelift.service.errors import ForbiddenRequest, TooLarge

# The largest there is names 4096 blocks of each of 64 disks.
MAX_BODY = 32 << 20


class Bodies:
    """In front of a framework that reads a body before it asks who sent it. Raises `UnauthorizedRequest` when `check`
    does, and `TooLarge`."""

    def __init__(self, app: ASGIApp, check: Callable[[Request], object]) -> None:
        self._app = app
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _has_body(request := Request(scope)):
            # Forbidden is a token of ours, for other calls than this one perhaps: that is for the call to say.
            with suppress(ForbiddenRequest):
                self._check(request)
            receive = _first(await _read(request, receive), receive)
        await self._app(scope, receive, send)


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


async def _read(request: Request, receive: Receive) -> Message:
    """All of it as one message. What comes is counted besides: a body in chunks does not say its length."""
    said = int(request.headers.get("content-length", 0))
    body = bytearray()
    while max(said, len(body)) <= MAX_BODY:
        message = await receive()
        if message["type"] != "http.request":
            return message
        body += message.get("body", b"")
        if not message.get("more_body"):
            return {"type": "http.request", "body": bytes(body), "more_body": False}
    raise TooLarge(f"The request's body has more than {MAX_BODY} bytes.", "Ask for less at once.")


def _first(message: Message, receive: Receive) -> Receive:
    left = [message]

    async def again() -> Message:
        return left.pop() if left else await receive()

    return again
