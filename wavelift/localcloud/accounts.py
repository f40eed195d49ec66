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
ACCOUNT = "1000000000000001"


@dataclass(frozen=True)
class Credential:
    key: str
    secret: str
    token: str = ""
    expires: float = 0.0  # wall clock; 0 for a key that lasts
    policy: Mapping[str, Any] | None = None  # what a temporary key is limited to, as RAM writes policies
    role: str = ""  # whose rights a temporary key has
    session: str = ""

    @property
    def account(self) -> str:
        return self.role.split(":")[3] if self.role else ACCOUNT

    @property
    def arn(self) -> str:
        """A key that lasts is a user's. The owner of an account may not assume roles, its users may."""
        if not self.role:
            return f"acs:ram::{ACCOUNT}:user/{self.key}"
        return f"{self.role.replace(':role/', ':assumed-role/')}/{self.session}"

    @property
    def identifier(self) -> str:
        """The number of the user or role, always the same for the same."""
        return str(3 * 10**17 + int(hashlib.sha256((self.role or self.key).encode()).hexdigest()[:14], 16))


class UnknownKey(Exception):
    """No such access key."""


class BadToken(Exception):
    """The security token is missing, altered, or not this key's."""


class ForeignToken(BadToken):
    """The security token is good, but another key's; or the key needs none."""


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
            if token:
                raise ForeignToken(key)
            return Credential(key, self._keys[key])
        body, _, mark = token.partition(".")
        if not hmac.compare_digest(self._mark(f"token {body}").encode(), mark.encode()):
            raise BadToken(key)
        try:
            claims = json.loads(base64.urlsafe_b64decode(body))
        except (binascii.Error, ValueError):
            raise BadToken(key) from None
        if claims["key"] != key:
            raise ForeignToken(key)
        if claims["expires"] <= time.time():
            raise ExpiredToken(key)
        return Credential(secret=self._mark(f"secret {key}"), token=token, **claims)

    def issue(
        self, seconds: float, policy: Mapping[str, Any] | None = None, role: str = "", session: str = ""
    ) -> Credential:
        """A new temporary credential."""
        key = TEMPORARY + secrets.token_hex(12)
        claims: dict[str, Any] = {
            "key": key,
            "expires": time.time() + min(seconds, LONGEST),
            "policy": policy,
            "role": role,
            "session": session,
        }
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
        token = f"{body}.{self._mark(f'token {body}')}"
        return Credential(secret=self._mark(f"secret {key}"), token=token, **claims)

    def _mark(self, text: str) -> str:
        return hmac.new(self._seal, text.encode(), hashlib.sha256).hexdigest()
