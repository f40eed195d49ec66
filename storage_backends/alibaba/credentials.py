"""Whose key requests are signed with: one that lasts, a session's, a role's, or the role of the instance this runs on.

All are providers as the SDK's own client for credentials takes them.
"""

from __future__ import annotations

import threading
import time
from calendar import timegm
from typing import Any, Protocol

from alibabacloud_credentials.client import Client as CredentialsClient
from alibabacloud_credentials.exceptions import CredentialException
from alibabacloud_credentials.provider import (
    EcsRamRoleCredentialsProvider,
    StaticAKCredentialsProvider,
    StaticSTSCredentialsProvider,
)
from alibabacloud_credentials.provider.refreshable import Credentials
from alibabacloud_tea_openapi.client import Client as OpenApiClient
from alibabacloud_tea_openapi.utils_models import OpenApiRequest, Params
from darabonba.runtime import RuntimeOptions
from Tea.exceptions import TeaException

from storage_backends.alibaba.ecs import repeated, sdk_config
from storage_backends.alibaba.settings import Access
from storage_backends.errors import Unavailable

_SESSION_SECONDS = 3600
# A call in flight, with its repetitions, still ends on the old key.
_RENEW_BEFORE_SECONDS = 600
_SESSION_NAME = "wavelift"
_METADATA_ERRORS = (CredentialException, TeaException, OSError, ValueError, KeyError, TypeError)


class Provider(Protocol):
    """What the SDK's client for credentials asks for."""

    def get_credentials(self) -> Any: ...

    def get_provider_name(self) -> str: ...


def provider_of(access: Access, region: str) -> Provider:
    """The key behind a connection; temporary ones renew themselves."""
    source = _source(access)
    return AssumedRole(source, access, region) if access.role_arn else source


def _source(access: Access) -> Provider:
    if access.instance_role:
        return InstanceRole(access.instance_role)
    key = {"access_key_id": access.access_key_id, "access_key_secret": access.access_key_secret}
    made: Provider
    if access.security_token:
        made = StaticSTSCredentialsProvider(security_token=access.security_token, **key)
    else:
        made = StaticAKCredentialsProvider(**key)
    return made


class AssumedRole:
    """The temporary key of a role that the key of `source` may take on, limited to `policy` (JSON) if there is one."""

    def __init__(self, source: Provider, access: Access, region: str, policy: str | None = None) -> None:
        self._endpoint = access.sts_endpoint
        self._query = {
            "RoleArn": access.role_arn,
            "RoleSessionName": _SESSION_NAME,
            "DurationSeconds": str(_SESSION_SECONDS),
        }
        if policy:
            self._query["Policy"] = policy
        credential = CredentialsClient(provider=source)
        self._client = OpenApiClient(sdk_config(access, region, self._endpoint, credential))
        self._lock = threading.Lock()
        self._held: Any = None
        self._renew_at = 0.0

    def get_provider_name(self) -> str:
        return "ram_role_arn"

    def get_credentials(self) -> Any:
        """Raises BackendError."""
        with self._lock:
            if time.time() >= self._renew_at:
                self._held, self._renew_at = self._assume()
            return self._held

    def renew(self) -> bool:
        """The next one who asks gets another key. Always true."""
        with self._lock:
            self._renew_at = 0.0
        return True

    def _assume(self) -> tuple[Any, float]:
        """The key, and when to renew it (seconds since 1970)."""
        params = Params(
            action="AssumeRole",
            version="2015-04-01",
            protocol="HTTPS",
            pathname="/",
            method="POST",
            auth_type="AK",
            style="RPC",
            req_body_type="formData",
            body_type="json",
        )

        def once() -> dict[str, str]:
            answer = self._client.call_api(params, OpenApiRequest(query=self._query), RuntimeOptions())
            given: dict[str, str] = answer["body"]["Credentials"]
            return given

        # A session more than is used does no harm.
        given = repeated("AssumeRole", self._endpoint, once, again=True)
        ends = timegm(time.strptime(given["Expiration"], "%Y-%m-%dT%H:%M:%SZ"))
        held = Credentials(
            access_key_id=given["AccessKeyId"],
            access_key_secret=given["AccessKeySecret"],
            security_token=given["SecurityToken"],
            expiration=ends,
            provider_name=self.get_provider_name(),
        )
        # By the clock of this machine, which may be wrong.
        return held, time.time() + _SESSION_SECONDS - _RENEW_BEFORE_SECONDS


class InstanceRole:
    """The temporary key that the metadata service gives to the ECS instance this runs on."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._metadata = EcsRamRoleCredentialsProvider(role_name=role, async_update_enabled=False)

    def get_provider_name(self) -> str:
        return str(self._metadata.get_provider_name())

    def get_credentials(self) -> Any:
        """Raises Unavailable."""
        try:
            return self._metadata.get_credentials()
        except _METADATA_ERRORS as error:
            raise Unavailable(
                f"The metadata service gave no key of the instance's RAM role {self._role}: {error}.",
                "Run Airflow on an ECS instance that has this role, or fill in an access key instead of instance_role.",
            ) from error
