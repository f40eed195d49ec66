"""What can go wrong in a backend, as types: the caller reads the class and fields, the user reads the sentence."""

from __future__ import annotations


class BackendError(Exception):
    """A backend could not do what was asked. `remedy` says what the user can do about it."""

    code = "backend_error"

    def __init__(self, message: str, remedy: str) -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message} {remedy}".strip())


class NotFound(BackendError):
    """The thing named does not exist (any more)."""

    code = "not_found"


class Conflict(BackendError):
    """The thing is in a state that does not allow this now or ever."""

    code = "conflict"


class TokenUsed(Conflict):
    """An order with the same client token and other values was made before."""


class Denied(BackendError):
    """The credentials are wrong or lack a right."""

    code = "denied"


class QuotaExceeded(BackendError):
    """The account or the region has no room for it."""

    code = "quota_exceeded"


class InvalidRequest(BackendError):
    """The cloud refuses the values."""

    code = "invalid_request"


class Unavailable(BackendError):
    """The backend did not answer, or throttled, for longer than we retried; trying later may help."""

    code = "unavailable"
