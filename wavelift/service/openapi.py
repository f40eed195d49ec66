"""What a service says of its calls: the OpenAPI document, with the job specs and the one form of every error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from wavelift.service.jobs import JobError

PATH = "/v1/openapi.json"
_REFERENCE = "#/components/schemas/{model}"


class ErrorAnswer(BaseModel):
    """The body of every answer that is not 2xx."""

    error: JobError


# By range: which codes a call knows is in `code`, whose meaning holds for every call.
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "Refused: the request, its token, or what it names"},
    "5XX": {"model": ErrorAnswer, "description": "Not possible now: the service's disk, device or peer"},
}


def add_openapi(app: FastAPI, guard: Callable[..., Any], specs: Mapping[str, type[BaseModel]]) -> None:
    """Serve the document to whoever `guard` lets in. `specs`: what can be submitted as a job, by its kind."""

    @app.get(PATH, summary="This document", dependencies=[Depends(guard)])
    def document() -> dict[str, Any]:
        return describe(app, specs)


def describe(app: FastAPI, specs: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    found: dict[str, Any] = get_openapi(title=app.title, version=app.version, routes=app.routes)
    # The route itself takes any object: which model it must fit is found out by its kind.
    wanted: list[tuple[type[BaseModel], Literal["validation"]]] = [(model, "validation") for model in specs.values()]
    named, definitions = models_json_schema(wanted, ref_template=_REFERENCE)
    found["components"]["schemas"].update(definitions["$defs"])
    references = {kind: named[model, "validation"] for kind, model in specs.items()}
    submit = found["paths"]["/v1/jobs/{key}"]["put"]["requestBody"]["content"]["application/json"]
    submit["schema"] = {
        "oneOf": list(references.values()),
        "discriminator": {
            "propertyName": "kind",
            "mapping": {kind: reference["$ref"] for kind, reference in references.items()},
        },
    }
    found["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    found["security"] = [{"bearer": []}]
    found["paths"]["/v1/health"]["get"]["security"] = []
    return found
