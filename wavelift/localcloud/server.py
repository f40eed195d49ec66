"""The cloud behind a socket: HTTP in and out, and nothing else."""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from wavelift.localcloud.actions import lookup
from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.listener import Listener
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import Options
from wavelift.localcloud.rpc import wire
from wavelift.localcloud.rpc.parameters import Parameters

LOG = logging.getLogger(__name__)


def answer(cloud: Cloud, authenticator: wire.Authenticator, request: wire.Request) -> tuple[int, bytes]:
    identifier = wire.new_request_id()
    try:
        authenticator.check(request)
        wire.check_version(request)
        reply = lookup(request.action)(cloud, Parameters(request.parameters()))
        return 200, wire.success_body(identifier, reply)
    except ApiError as error:
        if error.status >= 500:
            LOG.error("request %s: %s", identifier, error)
        return error.status, wire.error_body(identifier, request.headers.get("host", ""), error)
    except Exception:
        LOG.exception("request %s failed", identifier)
        unknown = ApiError("InternalError", "The request processing has failed due to some unknown error.", 500)
        return unknown.status, wire.error_body(identifier, request.headers.get("host", ""), unknown)


def application(cloud: Cloud, keys: Mapping[str, str]) -> Starlette:
    authenticator = wire.Authenticator(keys)

    async def endpoint(http: HttpRequest) -> Response:
        request = wire.Request(
            method=http.method,
            path=http.scope["path"],
            query=http.scope["query_string"].decode("ascii", "replace"),
            headers={name.lower(): value for name, value in http.headers.items()},
            body=await http.body(),
        )
        status, body = await run_in_threadpool(answer, cloud, authenticator, request)
        return Response(body, status, media_type="application/json;charset=utf-8")

    return Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"])])


class LocalCloud:
    """A cloud that listens. `with LocalCloud(state, keys) as cloud:` and point an SDK at `cloud.endpoint`."""

    def __init__(
        self,
        state: Path,
        keys: Mapping[str, str],
        options: Options | None = None,
        listen: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.cloud = Cloud(state, options or Options())
        self._listener = Listener("ecs", listen)
        self.endpoint = self._listener.endpoint
        self._application = application(self.cloud, keys)

    def start(self) -> None:
        """Returns when requests are answered (those that come earlier wait in the socket)."""
        self.cloud.start()
        self._listener.start(self._application)

    def stop(self) -> None:
        self._listener.stop()
        self.cloud.stop()

    def __enter__(self) -> "LocalCloud":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
