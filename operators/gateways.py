"""The gateways that a migration run uses: what is attached to them, and what serves there."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from operators.checks import tail
from operators.places import SLOTS, Place, gateway_labels, places
from operators.spread import JobService, SpreadJobs
from storage_backends.base import BootableBackend, Kind, Labels, Resource, State
from storage_backends.errors import NotFound
from wavelift.manifest.schema import Manifest, Migration
from wavelift.service.client import ServiceClient, ServiceUnreachable
from wavelift.service.errors import WaveliftError

log = logging.getLogger(__name__)

_ANSWER_SECONDS = 300.0


class GatewayStopped(WaveliftError):
    """The gateway instance stopped while it was waited for: it will do so again."""

    default_code = "gateway_stopped"


class GatewayBlind(WaveliftError):
    """The gateway does not see what is attached to its instance."""

    default_code = "gateway_blind"


class Gateways:
    """Everything here may be repeated at any time, and mends what died meanwhile."""

    def __init__(
        self, backend: BootableBackend, manifest: Manifest, migration: Migration, pool: str, user: Labels
    ) -> None:
        """`pool` is whose gateways they are, `user` the run that uses them."""
        self._backend, self._manifest, self._pool, self._user = backend, manifest, pool, user
        self._vswitch = migration.target.vswitch
        self._places = places(manifest, migration.name)

    @contextmanager
    def serving(self, volumes: Mapping[str, str]) -> Iterator[JobService]:
        """What runs jobs on these volumes (ids by disk), which are attached to the run's gateways and seen there.

        Raises `GatewayStopped`, `GatewayBlind`, `ServiceUnreachable`, BackendError.
        """
        with ExitStack() as stack:
            where: dict[str, ServiceClient] = {}
            for place, part in self._parts(list(volumes.values())):
                client = stack.enter_context(self._served(place, part))
                where |= dict.fromkeys(part, client)
            clients = list({id(client): client for client in where.values()}.values())
            yield clients[0] if len(clients) == 1 else SpreadJobs(clients, where)

    def _parts(self, volumes: Sequence[str]) -> Iterator[tuple[Place, Sequence[str]]]:
        for index, place in enumerate(self._places):
            if part := volumes[index * SLOTS : (index + 1) * SLOTS]:
                yield place, part

    def _served(self, place: Place, volumes: Sequence[str]) -> ServiceClient:
        """One that stops meanwhile, or does not answer, is replaced, once."""
        gateway = self._attached(place, volumes)
        try:
            return self._answering(gateway, volumes)
        except (GatewayStopped, ServiceUnreachable):
            self._backend.remove_gateway(gateway)
        return self._answering(self._attached(place, volumes), volumes)

    def _attached(self, place: Place, volumes: Sequence[str]) -> Resource:
        backend, labels = self._backend, gateway_labels(self._manifest, self._pool, place.number)
        gateway = backend.use_gateway(labels, self._vswitch, place.used, self._user)
        own = {volume.id: volume for volume in backend.list(self._user, Kind.VOLUME)}
        others = [each for each in own.values() if each.attached_to == gateway.id and each.id not in volumes]
        if len(others) + len(volumes) > place.slots:
            for other in others:
                backend.detach(other.id)
        for volume in volumes:
            now = own.get(volume) or backend.get(Kind.VOLUME, volume)
            if now.attached_to == gateway.id and now.state is State.READY:
                continue
            if now.attached_to and now.attached_to != gateway.id and self._on_a_gateway(volume):
                backend.detach(volume)
            backend.attach(volume, gateway.id)
        return gateway

    def _on_a_gateway(self, volume: str) -> bool:
        try:
            self._backend.gateway_of(volume)
        except NotFound:
            return False
        return True

    def _answering(self, gateway: Resource, volumes: Sequence[str]) -> ServiceClient:
        """A client of it, once it sees every volume."""
        access = self._backend.gateway_access(gateway, self._user)
        client = ServiceClient(access.url, access.token, access.fingerprint)
        deadline = time.monotonic() + _ANSWER_SECONDS
        try:
            while True:
                try:
                    unseen = set(volumes) - {volume["id"] for volume in client.get("/v1/volumes")}
                    if not unseen:
                        client.check_version()
                        return client
                    if time.monotonic() > deadline:
                        raise GatewayBlind(
                            f"The gateway at {access.url} does not see {', '.join(sorted(unseen))} after "
                            f"{_ANSWER_SECONDS:.0f} s.",
                            "Look at the instance in the cloud's console: are the volumes attached to it?",
                        )
                except ServiceUnreachable:
                    self._require_running(gateway)
                    if time.monotonic() > deadline:
                        raise
                time.sleep(0.5)
        except BaseException:
            client.close()
            raise

    def _require_running(self, gateway: Resource) -> None:
        """Raises `GatewayStopped` with the last console lines."""
        if self._backend.get(Kind.INSTANCE, gateway.id).state is State.STOPPED:
            console = tail(self._backend.console(gateway.id))
            raise GatewayStopped(
                f"The gateway instance {gateway.id} has stopped. Its last console lines:\n{console}\n",
                "Check gateway_image and gateway_command in the cloud connection.",
            )

    def leave(self) -> list[Resource]:
        """End what the run still does on its gateways, and let them go. Those that were removed."""
        backend, user = self._backend, self._user
        found = {each.id: each for each in backend.gateways_used(gateway_labels(self._manifest, self._pool), user)}
        # One that was unmarked by a try that ended before it could remove it has no mark any more.
        for place in self._places:
            labels = gateway_labels(self._manifest, self._pool, place.number)
            found |= {each.id: each for each in backend.list(labels, Kind.INSTANCE)}
        for gateway in found.values():
            self._end_jobs(gateway)
        return [gateway for gateway in found.values() if backend.leave_gateway(gateway, user)]

    def _end_jobs(self, gateway: Resource) -> None:
        """Others go on using it. One that does not answer runs nothing that matters."""
        access = self._backend.gateway_access(gateway, self._user)
        with ServiceClient(access.url, access.token, access.fingerprint) as client:
            try:
                for job in client.jobs():
                    client.cancel(job.key)
            except WaveliftError as error:
                log.warning("jobs of run %s on gateway %s: %s", self._user.run, gateway.id, error)
