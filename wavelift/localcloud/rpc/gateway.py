"""The way of every request: which service, which action, who asks; then the answer in the format that was asked for."""

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from wavelift.localcloud.accounts import Credential
from wavelift.localcloud.errors import ApiError, unfit, unknown_action
from wavelift.localcloud.faults.calls import Faults
from wavelift.localcloud.rpc import formats
from wavelift.localcloud.rpc.request import Request
from wavelift.localcloud.rpc.signatures import Authenticator

LOG = logging.getLogger(__name__)

LARGEST = 1 << 20

Handler = Callable[[Credential, Mapping[str, str]], Mapping[str, Any]]


class Service(Protocol):
    product: str

    def find(self, action: str) -> Handler:
        """Raises InvalidAction.NotFound."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    media: str
    request_id: str


class Gateway:
    """An ASGI application. Services by their version, as one address may serve several."""

    def __init__(self, authenticator: Authenticator, services: Mapping[str, Service], faults: Faults) -> None:
        self._authenticator = authenticator
        self._services = services
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = HttpRequest(scope, receive)
        request = Request(
            method=http.method,
            path=scope["path"],
            query=scope["query_string"].decode("ascii", "replace"),
            headers=dict(http.headers),
            body=b"",
        )
        try:
            request = replace(request, body=await _body(http))
        except ApiError as refusal:
            answer = _refuse(request, formats.default(request), "Ecs", _new_identifier(), refusal)
        else:
            answer = await run_in_threadpool(self.answer, request)
        headers = {"x-acs-request-id": answer.request_id, "content-type": answer.media}
        await Response(answer.body, answer.status, headers)(scope, receive, send)

    def answer(self, request: Request) -> Answer:
        identifier = _new_identifier()
        form, product = formats.default(request), "Ecs"
        try:
            form = formats.wanted(request)
            service = self._service(request)
            product = service.product
            handle = service.find(request.action)
            caller = self._authenticator.check(request)
            with self._faults.around_action(product, request.action, request.parameters, identifier):
                reply = handle(caller, request.parameters)
            return Answer(200, formats.success(form, request.action, identifier, reply), form.value, identifier)
        except ApiError as error:
            if error.status >= 500:
                LOG.error("request %s: %s", identifier, error)
            refusal = error
        except Exception:
            LOG.exception("request %s failed", identifier)
            refusal = ApiError("InternalError", "The request processing has failed due to some unknown error.")
        return _refuse(request, form, product, identifier, refusal)

    def _service(self, request: Request) -> Service:
        if request.path != "/":
            raise unknown_action()
        if request.method not in {"GET", "POST"}:
            raise ApiError("UnsupportedHTTPMethod", "This http method is not supported.")
        if request.version not in self._services:
            raise unfit("Version")
        return self._services[request.version]


def _new_identifier() -> str:
    return str(uuid.uuid4()).upper()


async def _body(http: HttpRequest) -> bytes:
    """Nobody has said who they are yet: no more is kept of it than a request can need."""
    body = bytearray()
    async for part in http.stream():
        body += part
        if len(body) > LARGEST:
            raise ApiError("RequestEntityTooLarge", f"A request has at most {LARGEST} bytes.")
    return bytes(body)


def _refuse(request: Request, form: formats.Format, product: str, identifier: str, refusal: ApiError) -> Answer:
    host = request.headers.get("host", "")
    return Answer(refusal.status, formats.failure(form, product, identifier, host, refusal), form.value, identifier)
