"""Reading an Airflow connection: every fault is named by connection and field."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from storage_backends.errors import InvalidRequest

N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Fields:
    """Login, password and extra of one connection. Everything raises InvalidRequest."""

    connection_id: str
    login: str
    password: str
    extra: Mapping[str, Any]

    def text(self, name: str) -> str:
        return str(self.extra.get(name) or "").strip()

    def flag(self, name: str) -> bool:
        """Forms send true and false, extras written by hand may have them as text; off where it is left out."""
        value = self.text(name).lower()
        if value not in ("", "true", "false"):
            raise self.wrong(name, value, "neither true nor false")
        return value == "true"

    def needed(self, name: str, value: Any) -> str:
        if not value:
            raise InvalidRequest(
                f"Airflow connection {self.connection_id} has no {name}.",
                f"Edit the connection (Admin > Connections > {self.connection_id}) and fill in {name}.",
            )
        return str(value)

    def number(self, name: str, kind: type[N], default: N) -> N:
        value = self.extra.get(name) or default
        try:
            made = kind(str(value))
        except ValueError:
            raise self.wrong(name, value, "not a number above 0") from None
        if not made > 0:
            raise self.wrong(name, value, "not a number above 0")
        return made

    def host(self, name: str) -> str:
        """HOST or HOST:PORT, or nothing."""
        value = self.text(name)
        if "/" in value:
            raise self.wrong(name, value, "not a host, or host:port, without https:// and path")
        return value

    def protocol(self) -> str:
        value = (self.text("protocol") or "https").lower()
        if value not in {"http", "https"}:
            raise self.wrong("protocol", value, "neither https nor http")
        return value

    def ca_file(self) -> str:
        """The path of a PEM file that can be read here, or nothing."""
        value = self.text("ca_file")
        if value:
            try:
                ssl.create_default_context(cafile=value)
            except (OSError, ssl.SSLError) as error:
                raise self.wrong("ca_file", value, f"not a readable PEM file of certificates here ({error})") from error
        return value

    def wrong(self, name: str, value: Any, what: str) -> InvalidRequest:
        return InvalidRequest(
            f"Airflow connection {self.connection_id}: {name} (extra) is {value!r}, {what}.",
            f"Edit the connection (Admin > Connections > {self.connection_id}) and correct {name}, or leave it out.",
        )
