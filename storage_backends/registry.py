"""Backends by the name that manifests use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storage_backends.alibaba import AlibabaBackend
from storage_backends.base import BootableBackend
from storage_backends.settings import AlibabaSettings


def open_backend(
    name: str,
    *,
    connection_id: str,
    login: str,
    password: str,
    extra: Mapping[str, Any],
    region: str,
    zone: str,
) -> BootableBackend:
    """The backend a manifest names, from the fields of its Airflow connection. Raises BackendError or KeyError."""
    if name != "alibaba":
        raise KeyError(f"no storage backend is called {name!r}; there is: alibaba")
    settings = AlibabaSettings.from_connection(
        connection_id=connection_id, login=login, password=password, extra=extra, region=region, zone=zone
    )
    return AlibabaBackend(settings)
