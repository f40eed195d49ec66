"""Who may call: access keys that last, and temporary ones as STS gives them.

A temporary key needs no record: its secret follows from its id, and its token says when it ends and what it may do,
under a seal that only this cloud can make. So it survives a restart, and a forged or altered one does not.
"""

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TEMPORARY = "STS."
LONGEST = 12 * 3600


@dataclass(frozen=True)
class Credential:
    key: str
    secret: str
    token: str = ""
    expires: float = 0.0  # wall clock; 0 for a key that lasts
    policy: Mapping[str, Any] | None = None  # what a temporary key is limited to, as RAM writes policies


class UnknownKey(Exception):
    """No such access key."""


class BadToken(Exception):
    """The security token is missing, altered, or not this key's."""


class ExpiredToken(Exception):
    """The security token was good until some time ago."""


class Accounts:
    def __init__(self, keys: Mapping[str, str], seal: bytes) -> None:
        """`seal` is secret, and the same after every restart."""
        self._keys = dict(keys)
        self._seal = seal

    def find(self, key: str, token: str = "") -> Credential:
        """The credential behind an access key id. Raises UnknownKey, BadToken or ExpiredToken."""
        if not key.startswith(TEMPORARY):
            if key not in self._keys:
                raise UnknownKey(key)
            return Credential(key, self._keys[key])
        body, _, mark = token.partition(".")
        if not hmac.compare_digest(self._mark(f"token {body}").encode(), mark.encode()):
            raise BadToken(key)
        try:
            claims = json.loads(base64.urlsafe_b64decode(body))
        except (binascii.Error, ValueError):
            raise BadToken(key) from None
        if claims["key"] != key:
            raise BadToken(key)
        if claims["expires"] <= time.time():
            raise ExpiredToken(key)
        return Credential(key, self._mark(f"secret {key}"), token, claims["expires"], claims["policy"])

    def issue(self, seconds: float, policy: Mapping[str, Any] | None = None) -> Credential:
        """A new temporary credential."""
        key = TEMPORARY + secrets.token_hex(12)
        expires = time.time() + min(seconds, LONGEST)
        claims = json.dumps({"key": key, "expires": expires, "policy": policy})
        body = base64.urlsafe_b64encode(claims.encode()).decode()
        token = f"{body}.{self._mark(f'token {body}')}"
        return Credential(key, self._mark(f"secret {key}"), token, expires, policy)

    def _mark(self, text: str) -> str:
        return hmac.new(self._seal, text.encode(), hashlib.sha256).hexdigest()
