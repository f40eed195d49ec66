"""The cloud behind its sockets: which service listens where."""

import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from wavelift.localcloud import sts
from wavelift.localcloud.accounts import Accounts, Credential
from wavelift.localcloud.actions import lookup
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

VERSION = "2014-05-26"


class Ecs:
    product = "Ecs"

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def find(self, action: str) -> Callable[[Credential, Mapping[str, str]], Mapping[str, Any]]:
        function = lookup(action)

        def handle(caller: Credential, parameters: Mapping[str, str]) -> Mapping[str, Any]:
            authorization.check(caller, REGION, action, parameters)
            specification.check(action, parameters)
            return function(self._cloud, Parameters(parameters))

        return handle


class LocalCloud:
    """A cloud that listens. `with LocalCloud(state, keys) as cloud:` and point an SDK at `cloud.endpoint`."""

    def __init__(
        self,
        state: Path,
        keys: Mapping[str, str],
        options: Options | None = None,
        listen: tuple[str, int] = ("127.0.0.1", 0),
        faults: Iterable[Rule] = (),
        admin_listen: tuple[str, int] = ("127.0.0.1", 0),
        oss_listen: tuple[str, int] = ("127.0.0.1", 0),
        oss_tls_listen: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.cloud = Cloud(state, options or Options())
        self.faults = Faults(faults)
        self.faults.install(self.cloud)
        self.admin_token = admin.kept_token(state)
        self._admin_listener = Listener("admin", admin_listen)
        self.admin_endpoint = self._admin_listener.endpoint
        self.accounts = Accounts(keys, _seal(self.cloud))
        self._listener = Listener("ecs", listen)
        self.endpoint = self._listener.endpoint
        services: dict[str, Service] = {VERSION: Ecs(self.cloud), sts.VERSION: sts.Sts(self.accounts)}
        gateway = Gateway(Authenticator(self.accounts), services, self.faults)
        self._application = FaultyReplies(gateway, self.faults)
        self._objects = ObjectService(self.cloud.objects, self.accounts, REGION)
        tls = state / "tls"
        certificate.ensure(tls, REGION, oss_tls_listen[0])
        self.oss_ca = tls / certificate.AUTHORITY
        self._oss_listeners = (
            Listener("oss", oss_listen),
            Listener("oss-tls", oss_tls_listen, Tls(tls / certificate.CERTIFICATE, tls / certificate.KEY)),
        )
        self.oss_endpoint, self.oss_tls_endpoint = (listener.endpoint for listener in self._oss_listeners)

    def start(self) -> None:
        """Returns when requests are answered (those that come earlier wait in the socket)."""
        self.cloud.start()
        self._listener.start(self._application)
        for listener in self._oss_listeners:
            listener.start(self._objects)
        self._admin_listener.start(admin.application(self.faults, self.admin_token))

    def stop(self) -> None:
        self._admin_listener.stop()
        self._listener.stop()
        for listener in self._oss_listeners:
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
