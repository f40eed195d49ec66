"""Calling ECS: one place that retries what may be retried and turns error codes into typed errors."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from alibabacloud_ecs20140526.client import Client
from alibabacloud_tea_openapi.exceptions import ClientException, ServerException, ThrottlingException
from alibabacloud_tea_openapi.utils_models import Config
from darabonba.exceptions import DaraException, UnretryableException

from storage_backends.errors import (
    BackendError,
    Conflict,
    Denied,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    TokenUsed,
    Unavailable,
)

_RETRY_FOR_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 8.0
_KEY = "Check the access key in the Airflow connection; it must belong to an active RAM user of this cloud."
_RULES: tuple[tuple[tuple[str, ...], type[BackendError], str], ...] = (
    (("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurityToken"), Denied, _KEY),
    (("Forbidden", "NoPermission", "UserNotInTheWhiteList"), Denied, "Grant the RAM user this action."),
    (("Quota", "QuotaExceed", "InstanceDiskLimitExceeded"), QuotaExceeded, "Raise the quota or free some."),
    (("IdempotentParam", "IdempotenceParam"), TokenUsed, "Try again."),
    (("OperationDenied.NoStock",), QuotaExceeded, "Choose another instance type or zone."),
    (
        ("InvalidVSwitchId.NotFound", "InvalidSecurityGroupId.NotFound"),
        NotFound,
        "Correct the id in the manifest.",
    ),
)
_CONFLICTS = ("Incorrect", "SnapshotCreated", "DependencyViolation", "OperationConflict", "InvalidOperation")


class EcsApi:
    """The real SDK's client, with back-off. `call` takes the client's method by name and its request."""

    def __init__(self, *, key_id: str, secret: str, region: str, endpoint: str, protocol: str) -> None:
        self.endpoint = endpoint or f"ecs.{region}.aliyuncs.com"
        self._client = Client(
            Config(
                access_key_id=key_id,
                access_key_secret=secret,
                region_id=region,
                endpoint=self.endpoint,
                protocol=protocol,
                # The SDK takes HTTP_PROXY even for loopback addresses.
                no_proxy=self.endpoint.partition(":")[0],
                connect_timeout=10_000,
                read_timeout=60_000,
            )
        )

    def call(self, action: str, request: Any) -> dict[str, Any]:
        """The body of the answer as a mapping of the API's own field names. Raises BackendError."""
        method: Callable[[Any], Any] = getattr(self._client, action)
        deadline = time.monotonic() + _RETRY_FOR_SECONDS
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                body: dict[str, Any] = method(request).body.to_map()
                return body
            except (ThrottlingException, ServerException, UnretryableException) as error:
                asked = getattr(error, "retry_after", None)
                wait = asked / 1000 if asked else pause * (0.5 + random.random() / 2)
                if time.monotonic() + wait > deadline:
                    raise self._unavailable(action, error) from error
                time.sleep(wait)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            except ClientException as error:
                if str(error.code).startswith(("Throttling", "ServiceUnavailable")):
                    if time.monotonic() + pause > deadline:
                        raise self._unavailable(action, error) from error
                    time.sleep(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                    continue
                raise self._typed(action, error) from error

    def _unavailable(self, action: str, error: DaraException) -> Unavailable:
        cause = getattr(error, "inner_exception", None) or error
        return Unavailable(
            f"{self.endpoint} did not carry out {action} within {_RETRY_FOR_SECONDS:.0f} s: {cause}.",
            "Check endpoint and network of the Airflow connection, or try again later.",
        )

    def _typed(self, action: str, error: ClientException) -> BackendError:
        code = str(error.code)
        message = f"{action} at {self.endpoint} was refused: {code}: {str(error.message).rstrip('.')}."
        for starts, kind, remedy in _RULES:
            if code.startswith(starts):
                return kind(message, remedy)
        if code.endswith(".NotFound"):
            return NotFound(message, "It may have been deleted by hand; run the migration again.")
        if code.startswith(_CONFLICTS):
            return Conflict(message, "Something else uses it; look at it in the cloud's console.")
        return InvalidRequest(message, "Correct the value named in the manifest or the connection.")
