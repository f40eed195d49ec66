"""What the Airflow connection tells the alibaba backend, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from storage_backends.errors import InvalidRequest
from storage_backends.gateway_boot import check_command

N = TypeVar("N", int, float)


@dataclass(frozen=True)
class GatewaySettings:
    """How gateway instances are made. `command` starts the service on the instance; `secret` signs its tokens."""

    image: str
    instance_type: str
    security_group: str
    secret: str
    command: str = "wavelift"
    port: int = 8443


@dataclass(frozen=True)
class AlibabaSettings:
    """Endpoint, credentials and habits of one cloud account in one zone."""

    access_key_id: str
    access_key_secret: str
    region: str
    zone: str
    gateway: GatewaySettings
    endpoint: str = ""
    protocol: str = "https"
    poll_seconds: float = 10.0

    @classmethod
    def from_connection(
        cls,
        *,
        connection_id: str,
        login: str,
        password: str,
        extra: Mapping[str, Any],
        region: str,
        zone: str,
    ) -> AlibabaSettings:
        """Raises InvalidRequest naming the connection and the field that is missing."""

        def needed(name: str, value: Any) -> str:
            if not value:
                raise InvalidRequest(
                    f"Airflow connection {connection_id} has no {name}.",
                    f"Edit the connection (Admin > Connections > {connection_id}) and fill in {name}.",
                )
            return str(value)

        def number(name: str, kind: type[N], default: N) -> N:
            value = extra.get(name) or default
            try:
                if (made := kind(str(value))) > 0:
                    return made
            except ValueError:
                pass
            raise InvalidRequest(
                f"Airflow connection {connection_id}: {name} (extra) is {value!r}, not a number above 0.",
                f"Edit the connection (Admin > Connections > {connection_id}) and correct {name}, or leave it out.",
            )

        command = str(extra.get("gateway_command") or "wavelift")
        check_command(command)
        return cls(
            access_key_id=needed("access key id (login)", login),
            access_key_secret=needed("access key secret (password)", password),
            region=region,
            zone=zone,
            endpoint=str(extra.get("endpoint") or ""),
            protocol=str(extra.get("protocol") or "https"),
            poll_seconds=number("poll_seconds", float, 10.0),
            gateway=GatewaySettings(
                image=needed("gateway_image (extra)", extra.get("gateway_image")),
                instance_type=needed("gateway_instance_type (extra)", extra.get("gateway_instance_type")),
                security_group=needed("gateway_security_group (extra)", extra.get("gateway_security_group")),
                secret=needed("gateway_secret (extra)", extra.get("gateway_secret")),
                command=command,
                port=number("gateway_port", int, 8443),
            ),
        )
