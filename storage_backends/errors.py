"""What can go wrong in a backend, as types: the caller reads the class and fields, the user reads the sentence."""

from __future__ import annotations

from typing import ClassVar


class BackendError(Exception):
    """A backend could not do what was asked. `remedy` says what the user can do about it; `retryable`: the same call
    may go well later."""

    code = "backend_error"
    retryable: ClassVar[bool] = False

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


class NotWhitelisted(Denied):
    """The account, not the user, lacks a right that only the cloud itself gives."""


class DryRunPassed(BackendError):
    """What was asked would be carried out, if it were not a dry run."""

    code = "dry_run_passed"


class Expired(Denied):
    """The credentials were good until some time ago."""

    code = "expired"


class QuotaExceeded(BackendError):
    """The account or the region has no room for it."""

    code = "quota_exceeded"


class InvalidRequest(BackendError):
    """The cloud refuses the values."""

    code = "invalid_request"


class Unavailable(BackendError):
    """The backend did not answer, or throttled, for longer than we retried; trying later may help."""

    code = "unavailable"
    retryable = True


class Throttled(Unavailable):
    """Too much is asked of it."""

    code = "throttled"


class Corrupted(BackendError):
    """What lies there is not what was put there."""

    code = "corrupted"
