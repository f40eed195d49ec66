"""The REST surface both services share: jobs, bearer auth, errors in the contract's form, health."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.middleware.base import RequestResponseEndpoint

import wavelift
from wavelift.service.bodies import Bodies
from wavelift.service.errors import Answerable, ForbiddenRequest, UnauthorizedRequest, explain
from wavelift.service.events import MAX_ASKED, JobEvent
from wavelift.service.jobs import JobStatus
from wavelift.service.metrics import Source, add_metrics
from wavelift.service.openapi import ERRORS, add_openapi
from wavelift.service.runner import JobRunner
from wavelift.service.versions import check_caller, description

log = logging.getLogger(__name__)

T = TypeVar("T")


class Health(BaseModel):
    """What a service says of itself to anybody. It speaks the versions `oldest_api` to `api` of this interface."""

    model_config = ConfigDict(extra="allow")

    service: str
    status: str
    version: str
    api: int
    oldest_api: int


class Events(BaseModel):
    """`next` is what to give as `after` to go on; the same as was given when nothing happened since."""

    events: list[JobEvent]
    next: int


Admit = Callable[[Any, str, Mapping[str, Any] | None], None]


def bearer_of(header: str | None) -> str:
    """The token of an Authorization header. Raises `UnauthorizedRequest`."""
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise UnauthorizedRequest("The request carries no bearer token.", "Send an Authorization header.")
    return token.strip()


def bearer(check: Callable[[str], T]) -> Callable[[Request], T]:
    """A FastAPI dependency: what `check` makes of the request's bearer token."""

    def dependency(request: Request) -> T:
        return check(bearer_of(request.headers.get("authorization")))

    return dependency


def shared_secret(secret: str) -> Callable[[str], str]:
    """A check for `bearer`: the token equals the secret, compared in constant time."""

    def check(token: str) -> str:
        if not hmac.compare_digest(token.encode(), secret.encode()):
            raise UnauthorizedRequest("The token is not this service's.", "Check its token file.")
        return "shared"

    return check


def _scraping(check: Callable[[str], Any], scraper: str | None) -> Callable[[str], Any]:
    # Whoever watches need not be able to start jobs, and a token of minutes is of no use to a scraper.
    def either(token: str) -> Any:
        if scraper is not None and hmac.compare_digest(token.encode(), scraper.encode()):
            return None
        return check(token)

    return either


def error_body(code: str, message: str, remedy: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "remedy": remedy}}


def _admit_all(_principal: Any, _key: str, _spec: Mapping[str, Any] | None) -> None:
    return None


def jobs_router(runner: JobRunner, check: Callable[[str], Any], admit: Admit = _admit_all) -> APIRouter:
    """The jobs calls. `admit(principal, key, spec)` may refuse one by raising; spec is None but for PUT."""
    router = APIRouter()
    principal_of = bearer(check)

    @router.put("/v1/jobs/{key:path}", summary="Submit a job, or find it again", responses={201: {"model": JobStatus}})
    def submit(key: str, spec: dict[str, Any], response: Response, principal: Any = Depends(principal_of)) -> JobStatus:
        admit(principal, key, spec)
        status, new = runner.submit(key, spec)
        response.status_code = 201 if new else 200
        return status

    @router.get("/v1/jobs", summary="All jobs that the token may know of")
    def jobs(principal: Any = Depends(principal_of)) -> list[JobStatus]:
        return [job for job in runner.all() if _admitted(admit, principal, job.key)]

    @router.get("/v1/jobs/{key:path}", summary="A job's state, progress and result")
    def job(key: str, principal: Any = Depends(principal_of)) -> JobStatus:
        admit(principal, key, None)
        return runner.get(key)

    @router.delete("/v1/jobs/{key:path}", summary="Cancel a job; answers once it writes nothing more")
    def cancel(key: str, principal: Any = Depends(principal_of)) -> JobStatus:
        admit(principal, key, None)
        return runner.cancel(key)

    @router.get("/v1/events", summary="What happened to the jobs, oldest first")
    def events(
        after: int = Query(0, ge=0, lt=1 << 63, description="the number of the last event already known"),
        limit: int = Query(100, ge=1, le=MAX_ASKED),
        job: str | None = Query(None, description="the key of the one job to tell of"),
        principal: Any = Depends(principal_of),
    ) -> Events:
        found = runner.events(after, limit, job)
        seen = [event for event in found if _admitted(admit, principal, event.job)]
        return Events(events=seen, next=found[-1].id if found else after)

    return router


def _admitted(admit: Admit, principal: Any, key: str) -> bool:
    try:
        admit(principal, key, None)
    except ForbiddenRequest:
        return False
    return True


def build_app(
    service: str,
    runner: JobRunner,
    check: Callable[[str], Any],
    admit: Admit = _admit_all,
    health: Callable[[], Mapping[str, Any]] = dict,
    answer: type[Health] = Health,
    metrics: Source = tuple,
    scraper: str | None = None,
) -> FastAPI:
    """An app with health, jobs and error handling; the service adds its own routes.

    `health` gives the fields that its `answer` has of its own; `metrics` are figures of its own; `scraper` is a secret
    that is good for asking for figures, and for nothing else.
    """
    # FastAPI's own pages would answer without a token.
    app = FastAPI(
        title=f"Wavelift {service}",
        version=wavelift.__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        responses=ERRORS,
    )

    @app.get("/v1/health", summary="That it can run jobs, and what it speaks; needs no token", response_model=answer)
    def healthy() -> Health:
        runner.check()
        return answer.model_validate({"service": service, "status": "ok", **description(), **health()})

    app.include_router(jobs_router(runner, check, admit))
    add_openapi(app, bearer(check), runner.models())
    add_metrics(app, bearer(_scraping(check, scraper)), service, runner, metrics)
    app.add_middleware(Bodies, check=bearer(check))
    # After it, so around it: what it raises is answered there.
    _install_error_handlers(app, service)
    return app


def _install_error_handlers(app: FastAPI, service: str) -> None:
    # No exception handler: those go by class, and the block engine's errors are of a class unknown here.
    @app.middleware("http")
    async def ours(request: Request, call_next: RequestResponseEndpoint) -> Response:
        try:
            # Health answers everybody: it is how the two sides find out.
            if request.url.path != "/v1/health":
                check_caller(request.headers, service)
            return await call_next(request)
        except Exception as error:
            if not isinstance(error, Answerable):
                raise
            if error.status >= 500:
                log.error("%s %s failed: %s", request.method, request.url.path, error.message)
            return JSONResponse(error_body(*explain(error)), error.status)

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        # The input is left out of the answer and of the log: it may hold a credential.
        detail = error.errors()[0]
        where = ".".join(str(part) for part in detail["loc"])
        return JSONResponse(error_body("invalid", f"{where}: {detail['msg']}.", "Correct the request."), 422)

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid")
        message = f"{request.method} {request.url.path}: {error.detail}."
        return JSONResponse(error_body(code, message, "See docs/architecture.md for the calls."), error.status_code)

    @app.exception_handler(Exception)
    def unforeseen(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return JSONResponse(error_body(*explain(error)), 500)
