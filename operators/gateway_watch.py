"""Whether the gateways that a run uses still are the ones that it began to wait with."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from storage_backends.base import BootableBackend, Labels, Resource, State
from storage_backends.errors import BackendError, NotFound
from wavelift.service.client import AsyncServiceClient

LOOK_SECONDS = 30.0

log = logging.getLogger(__name__)


class GatewayWatch:
    """Asks the cloud, not the gateways: a link that is down for a while is no death."""

    def __init__(
        self,
        backend: BootableBackend,
        gateways: Labels,
        user: Labels,
        used: Sequence[Resource],
    ) -> None:
        self._backend, self._gateways, self._user, self._used = backend, gateways, user, used
        self._looked = time.monotonic()

    @classmethod
    async def begin(cls, backend: BootableBackend, gateways: Labels, user: Labels) -> GatewayWatch:
        used = await asyncio.to_thread(backend.gateways_used, gateways, user)
        return cls(backend, gateways, user, used)

    def clients(self) -> list[AsyncServiceClient]:
        """Raises NotFound when there is none."""
        if not self._used:
            raise NotFound(f"Run {self._user.run} uses no gateway.", "Clear the task provision and run it again.")
        access = [self._backend.gateway_access(gateway, self._user) for gateway in self._used]
        return [AsyncServiceClient(each.url, each.token, each.fingerprint) for each in access]

    async def found_dead(self) -> bool:
        """Has one stopped, or gone, since the last look, which was some time ago?"""
        if not self._used or time.monotonic() - self._looked < LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        try:
            now = await asyncio.to_thread(self._backend.gateways_used, self._gateways, self._user)
        except BackendError as error:
            log.warning("%s", error)
            return False
        running = {gateway.id for gateway in now if gateway.state is State.READY}
        dead = [gateway.id for gateway in self._used if gateway.id not in running]
        if dead:
            log.warning("gateway %s runs no more", ", ".join(dead))
        return bool(dead)
