"""Calling ECS and STS by the real SDK: one place that repeats what may be repeated."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from alibabacloud_ecs20140526.client import Client
from alibabacloud_tea_openapi.exceptions import ClientException, ServerException, ThrottlingException
from alibabacloud_tea_openapi.utils_models import Config
from darabonba.exceptions import DaraException, UnretryableException

from storage_backends.alibaba.errors import is_passing, typed
from storage_backends.alibaba.settings import Access
from storage_backends.errors import BackendError, Denied, Expired, Throttled, Unavailable

T = TypeVar("T")

_RETRY_FOR_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 8.0
# What does the same when it is done twice: reads, and what is refused or does nothing once it is done. The rest needs
# a client token.
_REPEATABLE = (
    *("describe_", "get_", "attach_", "detach_", "delete_", "start_", "modify_", "tag_", "untag_"),
    "allocate_public_ip_address",
)


class EcsApi:
    """The SDK's client with back-off. `call` takes the client's method by name and its request."""

    def __init__(
        self, access: Access, region: str, endpoint: str, credential: Any, renew: Callable[[], bool] = lambda: False
    ) -> None:
        """`credential` as the SDK takes it; `renew` drops its temporary key, and says whether there will be another."""
        self.endpoint = endpoint
        self._renew = renew
        self._client = Client(sdk_config(access, region, endpoint, credential))

    def call(self, action: str, request: Any) -> dict[str, Any]:
        """The body of the answer as a mapping of the API's own field names. Raises BackendError.

        Without a client token in the request, what makes something is not repeated once it may have been carried out.
        """
        method: Callable[[Any], Any] = getattr(self._client, action)
        again = action.startswith(_REPEATABLE) or any(
            getattr(request, name, None) for name in ("client_token", "dry_run")
        )

        def once() -> dict[str, Any]:
            body: dict[str, Any] = method(request).body.to_map()
            return body

        try:
            return repeated(action, self.endpoint, once, again=again)
        except Expired:
            # The clocks differ, or the session was ended early. An expired key is refused before anything is done.
            if not self._renew():
                raise
        return repeated(action, self.endpoint, once, again=again)


def sdk_config(access: Access, region: str, endpoint: str, credential: Any) -> Any:
    """How the SDK reaches one service."""
    return Config(
        credential=credential,
        region_id=region,
        endpoint=endpoint,
        protocol=access.protocol,
        ca=access.ca_file or None,
        connect_timeout=10_000,
        read_timeout=60_000,
    )


def repeated(action: str, endpoint: str, once: Callable[[], T], *, again: bool) -> T:
    """What `once` returns, after as many tries as it takes within a minute. Raises BackendError.

    What was refused for now is tried again, after the time the cloud names. With `again`, so is what may have been
    carried out: server errors, a proxy's page, a lost reply.
    """
    deadline = time.monotonic() + _RETRY_FOR_SECONDS
    pause = _FIRST_PAUSE_SECONDS
    while True:
        wait = pause * (0.5 + random.random() / 2)
        try:
            return once()
        except ClientException as error:
            if not is_passing(str(error.code)):
                raise typed(action, endpoint, str(error.code), str(error.message)) from error
            failure: DaraException = error
        except ThrottlingException as error:
            failure = error
            if error.retry_after:
                # Milliseconds; a little later each, as others were told the same.
                wait = error.retry_after / 1000 + random.random() * pause
        except (ServerException, UnretryableException) as error:
            failure = error
            if isinstance(cause := getattr(error, "inner_exception", None), BackendError):
                # Of the credentials, which the SDK asks for in the middle of the call.
                raise cause from None
            if "CERTIFICATE_VERIFY_FAILED" in str(cause):
                raise Denied(
                    f"{endpoint} shows a certificate of an authority that is not known here: {cause}.",
                    "Fill in ca_file (extra of the connection): the path of the cloud's authority as a PEM file.",
                ) from error
            if not again and not is_passing(str(getattr(error, "code", ""))):
                raise Unavailable(
                    f"{endpoint} did not answer {action}: {cause or error}. It may have been carried out or not.",
                    "Look in the cloud's console, or run the task again.",
                ) from error
        if time.monotonic() + wait > deadline:
            cause = getattr(failure, "inner_exception", None) or failure
            throttled = str(getattr(failure, "code", "")).startswith("Throttling")
            raise (Throttled if throttled else Unavailable)(
                f"{endpoint} did not carry out {action} within {_RETRY_FOR_SECONDS:.0f} s: {cause}.",
                "Check endpoint and network of the Airflow connection, or try again later.",
            ) from failure
        time.sleep(wait)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
