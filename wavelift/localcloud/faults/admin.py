"""The way in at run time: rules, counters and the log over HTTP, for whoever has the token."""

import dataclasses
import hmac
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from wavelift.localcloud.faults.book import Book, Counter, KnownRule, UnknownRule
from wavelift.localcloud.faults.loading import RulesError, parse, parse_rule
from wavelift.localcloud.faults.rules import Rule

TOKEN_FILE = "admin-token"
BODY = "request body"


def kept_token(state: Path) -> str:
    """The token of this state folder, made the first time; only the owner can read it."""
    path = state / TOKEN_FILE
    if not path.exists():
        partial = path.with_suffix(".partial")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
        partial.rename(path)
    return path.read_text()


def application(book: Book, token: str) -> Starlette:
    async def show(request: Request) -> Response:
        return JSONResponse({"rules": [_shown(rule, counter) for rule, counter in book.rules()]})

    async def add(request: Request) -> Response:
        added = book.add(parse(await _text(request), BODY))
        return JSONResponse({"rules": [_shown(rule, Counter()) for rule in added]}, 201)

    async def clear(request: Request) -> Response:
        book.clear()
        return Response(status_code=204)

    async def replace(request: Request) -> Response:
        rule = book.replace(request.path_params["id"], parse_rule(await _text(request), BODY))
        return JSONResponse(_shown(rule, Counter()))

    async def remove(request: Request) -> Response:
        book.remove(request.path_params["id"])
        return Response(status_code=204)

    async def log(request: Request) -> Response:
        entries = book.log(request.query_params.get("rule"))
        return JSONResponse({"injected": [dataclasses.asdict(entry) for entry in entries]})

    async def reset(request: Request) -> Response:
        book.reset()
        return Response(status_code=204)

    routes = [
        Route("/rules", _answered(show), methods=["GET"]),
        Route("/rules", _answered(add), methods=["POST"]),
        Route("/rules", _answered(clear), methods=["DELETE"]),
        Route("/rules/{id}", _answered(replace), methods=["PUT"]),
        Route("/rules/{id}", _answered(remove), methods=["DELETE"]),
        Route("/log", _answered(log), methods=["GET"]),
        Route("/reset", _answered(reset), methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(_Guard, token=token)])


class _Guard:
    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope["headers"]).get(b"authorization", b"")
        if hmac.compare_digest(given, self._expected):
            await self._app(scope, receive, send)
            return
        refusal = _error("send the admin token as `Authorization: Bearer TOKEN`", 401)
        refusal.headers["WWW-Authenticate"] = "Bearer"
        await refusal(scope, receive, send)


Handler = Callable[[Request], Awaitable[Response]]


def _answered(handler: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except RulesError as error:
            return _error(str(error), 400)
        except UnknownRule as error:
            return _error(f"there is no rule {error}; GET /rules lists those there are", 404)
        except KnownRule as error:
            return _error(f"there is a rule {error} already; PUT /rules/{error} replaces it", 409)

    return answer


async def _text(request: Request) -> str:
    return (await request.body()).decode("utf-8", "replace")


def _shown(rule: Rule, counter: Counter) -> dict[str, Any]:
    fields = rule.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return {**fields, **dataclasses.asdict(counter)}


def _error(message: str, status: int) -> JSONResponse:
    return JSONResponse({"error": message}, status)
