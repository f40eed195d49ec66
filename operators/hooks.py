"""Airflow connections as clients: the agent's REST service and the cloud's backend. Secrets stay in here."""

from __future__ import annotations

import json
from typing import Any

from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from storage_backends.base import BootableBackend
from storage_backends.registry import open_backend
from wavelift.pinning import pin_of
from wavelift.service.client import ServiceClient
from wavelift.service.errors import WaveliftError

AGENT_TYPE = "wavelift_agent"
CLOUD_TYPE = "wavelift_alibaba"


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


def backend_of(connection: Connection, name: str, region: str, zone: str) -> BootableBackend:
    """The backend behind a cloud connection. Raises BackendError naming a missing field."""
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


class CloudHook(BaseHook):
    """Connection type wavelift_alibaba: access key id (login) and secret (password), endpoint and gateway in extra."""

    conn_type = CLOUD_TYPE
    conn_name_attr = "cloud_conn_id"
    default_conn_name = "wavelift_cloud"
    hook_name = "Wavelift: Alibaba Cloud"

    def __init__(self, cloud_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.cloud_conn_id = cloud_conn_id

    def get_conn(self, name: str = "alibaba", region: str = "", zone: str = "") -> BootableBackend:
        connection = find_connection(self.cloud_conn_id)
        extra: dict[str, Any] = connection.extra_dejson
        return backend_of(connection, name, region or extra.get("region", ""), zone or extra.get("zone", ""))

    def test_connection(self) -> tuple[bool, str]:
        """For the UI's Test button: endpoint, access key, region and zone (both from extra) are right."""
        try:
            self.get_conn().check_access()
        except Exception as error:  # noqa: BLE001 - the button shows whatever went wrong
            return False, str(error)
        return True, "The cloud accepts the access key and knows the region and zone"
