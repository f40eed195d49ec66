"""Airflow connections as clients: the agent's REST service and the storage backends. Secrets stay in here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from operators.provider import AGENT_TYPE, BACKEND_PREFIX
from storage_backends.archives.offline import shipped
from storage_backends.base import BootableBackend, Labels, ReadableBackend, StorageBackend
from storage_backends.errors import BackendError
from storage_backends.fields import Fields
from storage_backends.registry import backend_type, open_backend
from wavelift.archive.descriptor import DisksArchive
from wavelift.pinning import pin_of
from wavelift.service.client import ServiceClient
from wavelift.service.errors import WaveliftError


class BadConnection(WaveliftError):
    """An Airflow connection that is missing, or lacks a field."""

    default_code = "invalid"


def find_connection(connection_id: str) -> Connection:
    """The Airflow connection of that id. Raises BadConnection."""
    try:
        return BaseHook.get_connection(connection_id)
    except AirflowNotFoundException as error:
        raise BadConnection(
            f"Airflow has no connection {connection_id}.",
            f"Create {connection_id} under Admin > Connections, or correct the name in the manifest.",
        ) from error


def agent_address(connection: Connection) -> tuple[str, str, str]:
    """URL, token and fingerprint of an agent connection. Raises BadConnection naming a missing or wrong field."""
    for field in ("host", "port", "password"):
        if not getattr(connection, field):
            raise BadConnection(
                f"Airflow connection {connection.conn_id} has no {field}.",
                f"Fill in {'the token (password)' if field == 'password' else field} under Admin > Connections.",
            )
    scheme = (connection.schema or "https").lower()
    if scheme not in ("https", "http"):
        raise BadConnection(
            f"Airflow connection {connection.conn_id} has the scheme {connection.schema!r}, which is not https.",
            "Leave Scheme empty under Admin > Connections; http is for an agent that was started with --plaintext.",
        )
    url = f"{scheme}://{connection.host}:{connection.port}"
    try:
        # Not `extra_dejson`: that tells the supervisor what to mask, which an event loop must not wait for.
        given = str(json.loads(connection.extra or "{}").get("fingerprint") or "")
    except (ValueError, AttributeError):
        given = ""
    try:
        fingerprint = pin_of(url, given)
    except ValueError:
        has = "no fingerprint (64 hex digits)" if scheme == "https" else "the scheme http beside the fingerprint"
        raise BadConnection(
            f"Airflow connection {connection.conn_id} has {has} of its agent.",
            "Fill in Fingerprint under Admin > Connections with what the agent prints when it starts, and leave Scheme "
            "empty; the fingerprint stays the same as long as the agent's state folder does.",
        ) from None
    return url, connection.password or "", fingerprint


def storage_of(connection: Connection, region: str = "", zone: str = "") -> StorageBackend:
    """The backend behind a connection, which its type names. Raises BadConnection, and BackendError naming a missing
    field."""
    kind = connection.conn_type or ""
    if not kind.startswith(BACKEND_PREFIX) or kind == AGENT_TYPE:
        raise BadConnection(
            f"Airflow connection {connection.conn_id} has the type {kind!r}, which is none of a storage backend.",
            "Choose one that begins with Wavelift under Admin > Connections, or correct the name in the manifest.",
        )
    return _opened(connection, kind.removeprefix(BACKEND_PREFIX), region, zone)


def backend_of(connection: Connection, name: str, region: str, zone: str) -> BootableBackend:
    """The backend of that name that runs what is migrated. Raises BadConnection, and BackendError naming a missing
    field."""
    backend = _opened(connection, name, region, zone)
    if not backend.capabilities().bootable:
        raise BadConnection(
            f"The backend {name} of Airflow connection {connection.conn_id} runs no instances.",
            "Name a cloud in the manifest.",
        )
    return cast(BootableBackend, backend)


def archive_of(connection: Connection) -> ReadableBackend:
    """The backend behind a connection, which keeps archives. Raises BadConnection, and BackendError naming a missing
    field."""
    backend = storage_of(connection)
    if backend.capabilities().carrier == "gateway":
        raise BadConnection(
            f"Airflow connection {connection.conn_id} leads to a backend that keeps no archives.",
            "Name a connection of type wavelift_oss, or of another backend for archives, in `archive`.",
        )
    return cast(ReadableBackend, backend)


def shipped_of(connection: Connection, labels: Labels, folders: Sequence[str]) -> DisksArchive:
    """The archive that those labels name on disks which are mounted elsewhere. Raises BackendError."""
    fields = Fields(connection.conn_id, connection.login or "", connection.password or "", connection.extra_dejson)
    return shipped(fields, labels, folders)


def _opened(connection: Connection, name: str, region: str, zone: str) -> StorageBackend:
    return open_backend(
        name,
        connection_id=connection.conn_id,
        login=connection.login or "",
        password=connection.password or "",
        extra=connection.extra_dejson,
        region=region,
        zone=zone,
    )


class AgentHook(BaseHook):
    """Connection type wavelift_agent: host, port, token (password), and in extra the certificate's fingerprint."""

    conn_type = AGENT_TYPE
    conn_name_attr = "agent_conn_id"
    default_conn_name = "wavelift_agent"
    hook_name = "Wavelift agent"

    def __init__(self, agent_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.agent_conn_id = agent_conn_id

    def get_conn(self) -> ServiceClient:
        return ServiceClient(*agent_address(find_connection(self.agent_conn_id)))

    def test_connection(self) -> tuple[bool, str]:
        """For the UI's Test button: the agent answers, takes the token, and offers these disks."""
        try:
            with self.get_conn() as agent:
                disks = agent.get("/v1/disks")
        except Exception as error:  # noqa: BLE001 - the button shows whatever went wrong
            return False, str(error)
        return True, f"The agent offers {len(disks)} disk(s): {', '.join(disk['id'] for disk in disks)}"


class BackendHook(BaseHook):
    """What the connection types of all backends have in common; each has a class of its own, made below."""

    conn_name_attr = "backend_conn_id"

    def __init__(self, backend_conn_id: str) -> None:
        super().__init__()
        self.backend_conn_id = backend_conn_id

    def get_conn(self) -> StorageBackend:
        return storage_of(find_connection(self.backend_conn_id))

    def test_connection(self) -> tuple[bool, str]:
        """For the UI's Test button: all that is needed is there, right, and allowed."""
        try:
            self.get_conn().check_access()
        except Exception as error:  # noqa: BLE001 - the button shows whatever went wrong
            return False, str(error)
        return True, "The backend answers, and allows what is needed of it"


def __getattr__(name: str) -> type[BackendHook]:
    """The hook of the connection type `name`: Airflow looks for its class here, whoever brings the backend."""
    if not name.startswith(BACKEND_PREFIX):
        raise AttributeError(name)
    try:
        form = backend_type(name.removeprefix(BACKEND_PREFIX)).form
    except BackendError as error:
        raise AttributeError(str(error)) from error
    about = {"conn_type": name, "hook_name": form.title, "default_conn_name": name, "__module__": __name__}
    return type(name, (BackendHook,), about)
