"""Which version of the REST interface each side speaks, and who has to be upgraded where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wavelift import __version__
from wavelift.service.errors import InvalidRequest, WaveliftError

# Raised when a call changes so that the other side would misunderstand it; additions leave it alone.
API = 1
# The oldest that a service of this version still answers.
OLDEST_API = 1
_API_HEADER, _VERSION_HEADER = "wavelift-api", "wavelift-version"


class VersionMismatch(WaveliftError):
    """Two sides that do not speak the same interface; `upgrade` names the older one."""

    default_code = "version_mismatch"
    status = 409

    def __init__(self, caller: str, service: str, upgrade: str) -> None:
        self.caller, self.service, self.upgrade = caller, service, upgrade
        super().__init__(
            f"The caller is {caller}, the service is {service}: they do not understand each other.",
            f"Upgrade the {upgrade}.",
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.caller, self.service, self.upgrade)


def description() -> dict[str, Any]:
    """What a service says of itself in its health."""
    return {"version": __version__, "api": API, "oldest_api": OLDEST_API}


def headers() -> dict[str, str]:
    """What a client sends with each request."""
    return {_API_HEADER: str(API), _VERSION_HEADER: __version__}


def check_caller(sent: Mapping[str, str], service: str) -> None:
    """For a service; one who does not say what he speaks is let in. Raises `VersionMismatch`, `InvalidRequest`."""
    text = sent.get(_API_HEADER)
    if text is None:
        return
    if not text.isdecimal() or len(text) > 9:
        raise InvalidRequest(f"The header {_API_HEADER} is {text[:20]!r}, not a version of it.", "Leave it out.")
    if not OLDEST_API <= int(text) <= API:
        raise VersionMismatch(
            f"Wavelift {sent.get(_VERSION_HEADER, 'of an unknown version')} (API {text})",
            f"the {service} of Wavelift {__version__} (API {OLDEST_API} to {API})",
            service if int(text) > API else "caller (Airflow's side, or the command)",
        )


def check_service(health: Mapping[str, Any]) -> None:
    """For a client, with the answer of `GET /v1/health`. Raises `VersionMismatch`."""
    newest, service = _number(health.get("api")), str(health.get("service", "service"))
    oldest = _number(health.get("oldest_api"))
    if not oldest <= API <= newest:
        raise VersionMismatch(
            f"Wavelift {__version__} (API {API})",
            f"the {service} of Wavelift {health.get('version', 'of an unknown version')} (API {oldest} to {newest})",
            service if newest < API else "caller (Airflow's side, or the command)",
        )


def _number(value: Any) -> int:
    """0 for a service that does not say: it is from before this was asked."""
    return value if isinstance(value, int) else 0
