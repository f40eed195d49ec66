"""Errors as values: a code a program can read, a sentence a person can read, and what to do about it."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable


@runtime_checkable
class Explained(Protocol):
    """What every error we raise on purpose carries, wherever it was defined."""

    code: str
    message: str
    remedy: str


@runtime_checkable
class Answerable(Explained, Protocol):
    """One that also knows the HTTP status it travels with."""

    status: int


class WaveliftError(Exception):
    """Base of the services' own errors. `status` is the HTTP status it travels with."""

    default_code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, message: str, remedy: str, *, code: str | None = None) -> None:
        self.code: str = code or self.default_code
        self.message: str = message
        self.remedy: str = remedy
        super().__init__(f"{message} {remedy}".strip())


class InvalidRequest(WaveliftError):
    default_code = "invalid"
    status = 422


class UnauthorizedRequest(WaveliftError):
    default_code = "unauthorized"
    status = 401


class ForbiddenRequest(WaveliftError):
    default_code = "forbidden"
    status = 403


class NotFound(WaveliftError):
    default_code = "not_found"
    status = 404


class Conflict(WaveliftError):
    default_code = "conflict"
    status = 409


class TooLarge(WaveliftError):
    default_code = "too_large"
    status = 413


class NotServing(WaveliftError):
    """The service runs and can do nothing of what it is for."""

    default_code = "not_serving"
    status = 503


def explain(error: BaseException) -> tuple[str, str, str]:
    """(code, message, remedy) of any error; an unforeseen one is `internal` and names its type."""
    if isinstance(error, Explained):
        return error.code, error.message, error.remedy
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return (
            "io",
            f"The system refused: {error.strerror or error}{where}.",
            "Check the path and its device.",
        )
    return (
        "internal",
        f"Unforeseen {type(error).__name__}: {error}.",
        "Look at the service's log; this is a defect worth reporting.",
    )
