"""What the Airflow connection tells the alibaba backend, checked once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storage_backends.alibaba.gateway_boot import check_command
from storage_backends.base import ImageStrategy
from storage_backends.errors import InvalidRequest
from storage_backends.fields import Fields

_ROLE_ARN = re.compile(r"acs:ram::[0-9]+:role/[A-Za-z0-9.-]{1,64}")


@dataclass(frozen=True)
class Access:
    """How the cloud's services are reached, and as whom.

    A key, perhaps with the token of a session; or the RAM role of the ECS instance this runs on. Either may then take
    on `role_arn`, of which STS is asked at `sts_endpoint`.
    """

    access_key_id: str = ""
    access_key_secret: str = ""
    security_token: str = ""
    instance_role: str = ""
    role_arn: str = ""
    sts_endpoint: str = ""
    protocol: str = "https"
    ca_file: str = ""

    @classmethod
    def from_fields(cls, fields: Fields, *, region: str, dedicated: bool) -> Access:
        """`dedicated`: a cloud whose services have no public names, so that STS needs an endpoint of its own."""
        instance_role, role_arn = fields.text("instance_role"), fields.text("role_arn")
        key_id = key_secret = token = ""
        if not instance_role:
            key_id = fields.needed("access key id (login)", fields.login)
            key_secret = fields.needed("access key secret (password)", fields.password)
            token = fields.text("security_token")
        elif fields.login or fields.password or fields.text("security_token"):
            raise InvalidRequest(
                f"Airflow connection {fields.connection_id} has both an access key and instance_role (extra).",
                "Keep the access key (login, password, security_token), or instance_role, but not both.",
            )
        if role_arn and not _ROLE_ARN.fullmatch(role_arn):
            raise fields.wrong("role_arn", role_arn, "not of the form acs:ram::ACCOUNT:role/NAME")
        sts_endpoint = fields.host("sts_endpoint")
        if role_arn and not sts_endpoint:
            if dedicated:
                fields.needed("sts_endpoint (extra), which role_arn needs beside an endpoint", sts_endpoint)
            sts_endpoint = f"sts.{region}.aliyuncs.com"
        return cls(
            access_key_id=key_id,
            access_key_secret=key_secret,
            security_token=token,
            instance_role=instance_role,
            role_arn=role_arn,
            sts_endpoint=sts_endpoint,
            protocol=fields.protocol(),
            ca_file=fields.ca_file(),
        )


@dataclass(frozen=True)
class GatewaySettings:
    """How gateway instances are made, of the first of the types that is large enough. `command` starts the service on
    the instance; `secret` signs its tokens."""

    image: str
    instance_types: tuple[str, ...]
    security_group: str
    secret: str
    command: str = "wavelift"
    port: int = 8443


def _strategy(fields: Fields) -> ImageStrategy | None:
    """None: what the account may do is found out."""
    given = fields.text("image_strategy")
    if given and given not in set(ImageStrategy):
        raise fields.wrong("image_strategy", given, f"none of: {', '.join(ImageStrategy)}")
    return ImageStrategy(given) if given else None


@dataclass(frozen=True)
class AlibabaSettings:
    """Access to one cloud account in one zone, and habits."""

    access: Access
    region: str
    zone: str
    gateway: GatewaySettings
    endpoint: str
    poll_seconds: float = 10.0
    donor_image: str = ""
    image_strategy: ImageStrategy | None = None

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
        """Raises InvalidRequest naming the connection and the field that is missing or wrong."""
        fields = Fields(connection_id, login, password, extra)
        endpoint = fields.host("endpoint")
        command = fields.text("gateway_command") or "wavelift"
        check_command(command)

        def needed(name: str) -> str:
            return fields.needed(f"{name} (extra)", fields.extra.get(name))

        return cls(
            access=Access.from_fields(fields, region=region, dedicated=bool(endpoint)),
            region=region,
            zone=zone,
            endpoint=endpoint or f"ecs.{region}.aliyuncs.com",
            poll_seconds=fields.number("poll_seconds", float, 10.0),
            donor_image=fields.text("donor_image"),
            image_strategy=_strategy(fields),
            gateway=GatewaySettings(
                image=needed("gateway_image"),
                instance_types=tuple(needed("gateway_instance_type").replace(",", " ").split()),
                security_group=needed("gateway_security_group"),
                secret=needed("gateway_secret"),
                command=command,
                port=fields.number("gateway_port", int, 8443),
            ),
        )
