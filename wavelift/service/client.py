"""REST clients of agent and gateway: one blocking, one for Airflow's triggers."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from wavelift.pinning import pin_of, pinned_context, wrong_certificate
from wavelift.service import versions
from wavelift.service.errors import InvalidRequest, WaveliftError
from wavelift.service.jobs import JobStatus

DEFAULT_TIMEOUT = 30.0
# Cancelling returns once nothing more is written, which may take as long as a slow pack.
CANCEL_TIMEOUT = 180.0
# What a handshake with one that speaks no TLS ends with; the second in newer libraries.
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")


class ServiceUnreachable(WaveliftError):
    """No answer at all: refused, timed out, cut off, or not one of our services."""

    default_code = "service_unreachable"
    status = 502

    def __init__(self, url: str, cause: str) -> None:
        self.url = url
        self.cause = cause
        remedy = "Check that the service runs and can be reached from here."
        if url.lower().startswith("http://"):
            remedy += " Unless it was started with --plaintext, it takes https only."
        elif any(each in cause for each in _NO_TLS):
            remedy = (
                "What answers there speaks no TLS. Start the service without --plaintext; or, where the link itself "
                "is encrypted, write http and leave the fingerprint out."
            )
        super().__init__(f"{url} cannot be reached: {cause}.", remedy)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.cause)


class ServiceError(WaveliftError):
    """The service answered with an error; its code, message and remedy are handed on."""

    def __init__(self, code: str, message: str, remedy: str, http_status: int) -> None:
        super().__init__(message, remedy, code=code)
        self.http_status = http_status

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, self.message, self.remedy, self.http_status)


class Unauthorized(ServiceError):
    """401: the token is wrong or has expired."""

    def __init__(self, code: str, message: str, remedy: str, http_status: int = 401) -> None:
        super().__init__(code, message, remedy, http_status)


class WrongFingerprint(WaveliftError):
    """Something with another certificate answers there; nothing was sent to it. Fingerprints as hex."""

    default_code = "wrong_fingerprint"
    status = 502

    def __init__(self, url: str, pinned: str, shown: str) -> None:
        self.url, self.pinned, self.shown = url, pinned, shown
        super().__init__(
            f"{url} shows a certificate with the fingerprint {shown}, expected is {pinned}; nothing was sent to it.",
            "If the service was set up anew, enter the fingerprint that it prints when it starts (for an agent: in its "
            "Airflow connection). If it was not, somebody stands in between.",
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.pinned, self.shown)


def job_path(key: str) -> str:
    return f"/v1/jobs/{quote(key, safe='')}"


def _headers(token: str) -> dict[str, str]:
    return {**versions.headers(), **({"Authorization": f"Bearer {token}"} if token else {})}


def _verification(url: str, fingerprint: str) -> ssl.SSLContext | bool:
    """What httpx is to check a peer by. Raises `InvalidRequest` where URL and fingerprint do not go together."""
    try:
        pin = pin_of(url, fingerprint)
    except ValueError as error:
        raise InvalidRequest(
            f"{url} cannot be recognised by the fingerprint {fingerprint!r}: {error}.",
            "Give the URL and the fingerprint that the service prints when it starts.",
        ) from None
    return pinned_context(pin) if pin else False


def _cause(error: httpx.HTTPError) -> str:
    return f"{type(error).__name__} ({error})" if str(error) else type(error).__name__


def _failure(url: str, error: httpx.HTTPError) -> WaveliftError:
    wrong = wrong_certificate(error)
    return ServiceUnreachable(url, _cause(error)) if wrong is None else WrongFingerprint(url, wrong.pinned, wrong.shown)


def _body(response: httpx.Response) -> Any:
    if response.is_success:
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError:
            raise ServiceUnreachable(str(response.url), "the answer is not JSON") from None
    try:
        error = response.json()["error"]
        code, message, remedy = str(error["code"]), str(error["message"]), str(error.get("remedy", ""))
    except (ValueError, KeyError, TypeError):
        raise ServiceUnreachable(
            str(response.url), f"status {response.status_code} from something that is not a Wavelift service"
        ) from None
    if response.status_code == 401:
        raise Unauthorized(code, message, remedy)
    raise ServiceError(code, message, remedy, response.status_code)


class ServiceClient:
    """Blocking client. Every call raises `ServiceUnreachable`, `WrongFingerprint`, `Unauthorized` or `ServiceError`.

    An https URL needs the fingerprint of the service's certificate; nothing is sent to one with another.
    """

    def __init__(self, base_url: str, token: str = "", fingerprint: str = "", timeout: float = DEFAULT_TIMEOUT) -> None:
        self.base_url = base_url.rstrip("/")
        # A proxy meant for the internet must not see, or break, what stays between our services.
        self._http = httpx.Client(
            base_url=self.base_url,
            headers=_headers(token),
            timeout=timeout,
            trust_env=False,
            verify=_verification(self.base_url, fingerprint),
        )

    def __enter__(self) -> ServiceClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def request(
        self, method: str, path: str, json: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> Any:
        """The decoded JSON answer; `timeout` in seconds overrides the client's."""
        limit = self._http.timeout if timeout is None else httpx.Timeout(timeout)
        try:
            response = self._http.request(method, path, json=json, timeout=limit)
        except httpx.HTTPError as error:
            raise _failure(self.base_url, error) from error
        return _body(response)

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def post(self, path: str, json: Mapping[str, Any] | None = None) -> Any:
        return self.request("POST", path, json)

    def delete(self, path: str) -> Any:
        return self.request("DELETE", path, timeout=CANCEL_TIMEOUT)

    def health(self) -> dict[str, Any]:
        return dict(self.get("/v1/health"))

    def check_version(self) -> None:
        """Raises `VersionMismatch` unless the service speaks what this client speaks."""
        versions.check_service(self.health())

    def submit(self, key: str, spec: Mapping[str, Any]) -> JobStatus:
        return JobStatus.model_validate(self.request("PUT", job_path(key), spec))

    def job(self, key: str) -> JobStatus:
        return JobStatus.model_validate(self.get(job_path(key)))

    def jobs(self) -> list[JobStatus]:
        return [JobStatus.model_validate(job) for job in self.get("/v1/jobs")]

    def cancel(self, key: str) -> JobStatus:
        """Returns once the job writes nothing more."""
        return JobStatus.model_validate(self.delete(job_path(key)))


class AsyncServiceClient:
    """The twin for the triggerer: `async with AsyncServiceClient(...) as client`."""

    def __init__(self, base_url: str, token: str = "", fingerprint: str = "", timeout: float = DEFAULT_TIMEOUT) -> None:
        self.base_url = base_url.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=self.base_url,
            headers=_headers(token),
            timeout=timeout,
            trust_env=False,
            verify=_verification(self.base_url, fingerprint),
        )

    async def __aenter__(self) -> AsyncServiceClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def request(
        self, method: str, path: str, json: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> Any:
        limit = self._http.timeout if timeout is None else httpx.Timeout(timeout)
        try:
            response = await self._http.request(method, path, json=json, timeout=limit)
        except httpx.HTTPError as error:
            raise _failure(self.base_url, error) from error
        return _body(response)

    async def health(self) -> dict[str, Any]:
        return dict(await self.request("GET", "/v1/health"))

    async def submit(self, key: str, spec: Mapping[str, Any]) -> JobStatus:
        return JobStatus.model_validate(await self.request("PUT", job_path(key), spec))

    async def job(self, key: str) -> JobStatus:
        return JobStatus.model_validate(await self.request("GET", job_path(key)))

    async def cancel(self, key: str) -> JobStatus:
        """Returns once the job writes nothing more."""
        return JobStatus.model_validate(await self.request("DELETE", job_path(key), timeout=CANCEL_TIMEOUT))
