"""Backends by name: those that installed packages bring, by entry points of the group `wavelift.storage_backends`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from storage_backends.base import StorageBackend
from storage_backends.errors import BackendError
from storage_backends.fields import Fields
from storage_backends.plugin import BackendType

log = logging.getLogger(__name__)
GROUP = "wavelift.storage_backends"


class UnknownBackend(BackendError):
    """No installed package brings a backend of that name; `installed` are those that there are."""

    code = "unknown_backend"

    def __init__(self, name: str, installed: list[str]) -> None:
        self.name, self.installed = name, installed
        super().__init__(
            f"No storage backend is called {name!r}; installed are: {', '.join(installed) or 'none'}.",
            "Correct the name, or install the package that brings it where Airflow runs.",
        )


class BrokenBackend(BackendError):
    """A package brings a backend of that `name` that cannot be loaded from `value`."""

    code = "broken_backend"

    def __init__(self, name: str, package: str, value: str, why: str) -> None:
        self.name, self.package, self.value = name, package, value
        super().__init__(
            f"The storage backend {name} of the package {package} cannot be loaded from {value}: {why}.",
            f"Repair, upgrade or remove {package} where Airflow runs.",
        )


def backend_names() -> list[str]:
    return sorted(entry_points(group=GROUP).names)


def backend_type(name: str) -> BackendType:
    """Raises UnknownBackend, BrokenBackend."""
    # The same package may be found on several paths.
    found = {point.value: point for point in entry_points(group=GROUP, name=name)}
    if not found:
        raise UnknownBackend(name, backend_names())
    if len(found) > 1:
        raise _broken(*found.values(), why="more than one package brings that name")
    (point,) = found.values()
    try:
        # Another package's module may fail in any way.
        loaded = point.load()
    except Exception as error:
        raise _broken(point, why=f"{type(error).__name__}: {error}") from error
    if not isinstance(loaded, BackendType):
        raise _broken(point, why=f"it is a {type(loaded).__name__}, not a BackendType")
    return loaded


def backend_types() -> dict[str, BackendType]:
    """By name, all that can be loaded; of the others the log tells."""
    types = {}
    for name in backend_names():
        try:
            types[name] = backend_type(name)
        except BrokenBackend as error:
            log.warning("%s", error)
    return types


def open_backend(
    name: str,
    *,
    connection_id: str,
    login: str,
    password: str,
    extra: Mapping[str, Any],
    region: str = "",
    zone: str = "",
) -> StorageBackend:
    """The backend of that name, from the fields of its Airflow connection. Raises BackendError."""
    return backend_type(name).opened(Fields(connection_id, login, password, extra), region, zone)


def _broken(*points: EntryPoint, why: str) -> BrokenBackend:
    packages = (point.dist.name if point.dist else "unknown" for point in points)
    return BrokenBackend(points[0].name, ", ".join(packages), ", ".join(point.value for point in points), why)
