"""Whether the gateways that a run uses still are the ones that it waits with."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from airflow.sdk.exceptions import AirflowNotFoundException

from storage_backends.base import BootableBackend, Labels, Resource, State
from storage_backends.errors import BackendError, NotFound
from wavelift.service.client import AsyncServiceClient
from wavelift.service.errors import WaveliftError

LOOK_SECONDS = 30.0

log = logging.getLogger(__name__)


class GatewayWatch:
    """Asks the cloud, not the gateways: a link that is down for a while is no death."""

    def __init__(self, backend: Callable[[], Awaitable[BootableBackend]], gateways: Labels, user: Labels) -> None:
        self._backend, self._gateways, self._user = backend, gateways, user
        self._used: Sequence[Resource] | None = None
        self._looked = time.monotonic()

    async def clients(self) -> list[AsyncServiceClient]:
        """Raises NotFound when there is none, BackendError."""
        backend = await self._backend()
        self._used = await asyncio.to_thread(backend.gateways_used, self._gateways, self._user)
        if not self._used:
            raise NotFound(f"Run {self._user.run} uses no gateway.", "Clear the task provision and run it again.")
        access = [backend.gateway_access(gateway, self._user) for gateway in self._used]
        return [AsyncServiceClient(each.url, each.token, each.fingerprint) for each in access]

    async def found_dead(self) -> bool:
        """Has one stopped, or gone since the last look, which was some time ago? A cloud that does not answer tells
        nothing: what waits for an agent goes on."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        try:
            backend = await self._backend()
            now = await asyncio.to_thread(backend.gateways_used, self._gateways, self._user)
        except (BackendError, WaveliftError, AirflowNotFoundException) as error:
            log.warning("%s", error)
            return False
        before = now if self._used is None else self._used
        self._used = before
        running = {gateway.id for gateway in now if gateway.state is State.READY}
        dead = [gateway.id for gateway in before if gateway.id not in running]
        if dead:
            log.warning("gateway %s runs no more", ", ".join(dead))
        return bool(dead)
