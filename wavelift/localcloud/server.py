"""The cloud behind its sockets: which service listens where."""

import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from starlette.types import ASGIApp

from wavelift.localcloud import sts
from wavelift.localcloud.accounts import Accounts, Credential
from wavelift.localcloud.actions import ACTIONS, lookup
from wavelift.localcloud.entities import REGION
from wavelift.localcloud.faults import admin
from wavelift.localcloud.faults.calls import Faults
from wavelift.localcloud.faults.replies import FaultyReplies
from wavelift.localcloud.faults.rules import Rule
from wavelift.localcloud.listener import Listener, Tls
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import Options
from wavelift.localcloud.oss import certificate
from wavelift.localcloud.oss.service import ObjectService
from wavelift.localcloud.rpc import authorization, specification
from wavelift.localcloud.rpc.gateway import Gateway, Service
from wavelift.localcloud.rpc.parameters import Parameters
from wavelift.localcloud.rpc.signatures import Authenticator

LOG = logging.getLogger(__name__)

VERSION = "2014-05-26"
LOOPBACK = ("127.0.0.1", 0)

Address = tuple[str, int]


class Ecs:
    product = "Ecs"

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def find(self, action: str) -> Callable[[Credential, Mapping[str, str]], Mapping[str, Any]]:
        if action not in ACTIONS and specification.known(action):
            LOG.warning("ECS has the action %s, this cloud does not", action)
        function = lookup(action)

        def handle(caller: Credential, parameters: Mapping[str, str]) -> Mapping[str, Any]:
            authorization.check(caller, REGION, action, parameters)
            specification.check(action, parameters)
            self._cloud.room.check(action)
            return function(self._cloud, Parameters(parameters))

        return handle


class LocalCloud:
    """A cloud that listens. `with LocalCloud(state, keys) as cloud:` and point an SDK at `cloud.endpoint`."""

    def __init__(
        self,
        state: Path,
        keys: Mapping[str, str],
        options: Options | None = None,
        listen: Address = LOOPBACK,
        *,
        oss_listen: Address = LOOPBACK,
        admin_listen: Address = LOOPBACK,
        faults: Iterable[Rule] = (),
    ) -> None:
        tls = state / "tls"
        with ExitStack() as bound:

            def bind(name: str, address: Address, secret: Tls | None = None) -> Listener:
                listener = Listener(name, address, secret)
                bound.callback(listener.stop)
                return listener

            ecs, oss, admin_api = bind("ecs", listen), bind("oss", oss_listen), bind("admin", admin_listen)
            certified = Tls(tls / certificate.CERTIFICATE, tls / certificate.KEY)
            ecs_tls = bind("ecs-tls", (listen[0], 0), certified)
            oss_tls = bind("oss-tls", (oss_listen[0], 0), certified)
            self.cloud = Cloud(state, options or Options())
            bound.callback(self.cloud.stop)
            certificate.ensure(tls, REGION, oss_listen[0])
            self.admin_token = admin.kept_token(state)
            self.accounts = Accounts(keys, _seal(self.cloud))
            self.faults = Faults(faults)
            self.faults.install(self.cloud)
            bound.pop_all()
        self.endpoint, self.tls_endpoint, self.admin_endpoint = ecs.endpoint, ecs_tls.endpoint, admin_api.endpoint
        self.oss_endpoint, self.oss_tls_endpoint = oss.endpoint, oss_tls.endpoint
        self.oss_ca = tls / certificate.AUTHORITY
        services: dict[str, Service] = {VERSION: Ecs(self.cloud), sts.VERSION: sts.Sts(self.accounts)}
        gateway = Gateway(Authenticator(self.accounts), services, self.faults)
        self._objects = ObjectService(self.cloud.objects, self.accounts, REGION, self.faults)
        self._serving: list[tuple[Listener, ASGIApp]] = [
            (ecs, FaultyReplies(gateway, self.faults)),
            (ecs_tls, FaultyReplies(gateway, self.faults)),
            (oss, FaultyReplies(self._objects, self.faults)),
            (oss_tls, FaultyReplies(self._objects, self.faults)),
            (admin_api, admin.application(self.faults, self.admin_token)),
        ]

    def start(self) -> None:
        """Returns when requests are answered (those that come earlier wait in the socket)."""
        self.cloud.start()
        for listener, application in self._serving:
            listener.start(application)

    def stop(self) -> None:
        for listener, _ in self._serving:
            listener.end()
        for listener, _ in self._serving:
            listener.stop()
        self._objects.close()
        self.cloud.stop()

    def __enter__(self) -> "LocalCloud":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _seal(cloud: Cloud) -> bytes:
    """Kept with the state, so that temporary keys outlive a restart."""
    with cloud.store.transaction() as tx:
        seal = tx.setting("seal") or secrets.token_hex(32)
        tx.keep("seal", seal)
    return bytes.fromhex(seal)
