"""Scoped, short-lived tokens between orchestrator and gateway (JWT, HS256)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Literal

import jwt

from wavelift.service.errors import ForbiddenRequest, InvalidRequest, UnauthorizedRequest

Scope = Literal["control", "write"]
AUDIENCE = "gateway"
MIN_KEY_BYTES = 32


@dataclass(frozen=True)
class Claims:
    """What a verified token allows. `expires` in seconds since the epoch."""

    migration: str
    scope: Scope
    volumes: frozenset[str]
    expires: int

    def require_scope(self, scope: Scope) -> None:
        """Raises `ForbiddenRequest`."""
        if self.scope != scope:
            raise ForbiddenRequest(
                f"This token has scope {self.scope!r}; the call needs {scope!r}.", f"Use a {scope} token."
            )

    def require_migration(self, migration: str) -> None:
        """Raises `ForbiddenRequest`."""
        if self.migration != migration:
            raise ForbiddenRequest(
                f"This token is for migration {self.migration!r}, not for {migration!r}.",
                "Issue a token for that migration.",
            )

    def require_volume(self, volume: str) -> None:
        """Raises `ForbiddenRequest`. Only a control token may name no volumes and so cover all."""
        if volume in self.volumes or (self.scope == "control" and not self.volumes):
            return
        raise ForbiddenRequest(f"This token does not cover volume {volume!r}.", "Issue a token that names this volume.")


def issue(key: str, *, migration: str, scope: Scope, volumes: Sequence[str] = (), lifetime: timedelta | float) -> str:
    """A signed token; `lifetime` in seconds. Raises `InvalidRequest` for a key under 32 bytes."""
    seconds = lifetime.total_seconds() if isinstance(lifetime, timedelta) else lifetime
    claims = {
        "aud": AUDIENCE,
        "sub": migration,
        "scope": scope,
        "volumes": sorted(volumes),
        "exp": int(time.time() + seconds),
    }
    return jwt.encode(claims, check_key(key), algorithm="HS256")


def verify(key: str, token: str, *, scope: Scope | None = None) -> Claims:
    """The token's claims. Raises `UnauthorizedRequest` (bad, expired), `ForbiddenRequest` (other scope)."""
    claims = _signed(key, token)
    if claims.expires <= time.time():
        raise UnauthorizedRequest("The token has expired.", "Submit again with a fresh token.")
    if scope is not None:
        claims.require_scope(scope)
    return claims


@lru_cache(maxsize=256)  # every pack brings its token along
def _signed(key: str, token: str) -> Claims:
    """What a token says that was signed with the key, expired or not."""
    try:
        payload = jwt.decode(
            token,
            check_key(key),
            algorithms=["HS256"],
            audience=AUDIENCE,
            options={"require": ["exp", "sub", "aud"], "verify_exp": False},
        )
        expires = int(payload["exp"])
    except (jwt.InvalidTokenError, TypeError, ValueError) as error:
        raise UnauthorizedRequest(
            f"The token is not valid ({type(error).__name__}).",
            "Check that orchestrator and gateway share the same key file.",
        ) from None
    granted = payload.get("scope")
    volumes = payload.get("volumes", [])
    if granted not in ("control", "write") or not isinstance(volumes, list):
        raise UnauthorizedRequest("The token lacks a known scope.", "Issue it with this version of Wavelift.")
    return Claims(
        migration=str(payload["sub"]),
        scope="control" if granted == "control" else "write",
        volumes=frozenset(str(volume) for volume in volumes),
        expires=expires,
    )


def check_key(key: str) -> str:
    """The key as it is. Raises `InvalidRequest` when it is too short to sign with."""
    if len(key.encode()) < MIN_KEY_BYTES:
        raise InvalidRequest(
            f"The token key has fewer than {MIN_KEY_BYTES} bytes.", "Make one: `openssl rand -hex 32`."
        )
    return key
