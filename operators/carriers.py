"""The archives that carry a migration's generations: one for each disk, in a bucket or on disks that are shipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from operators.hooks import find_connection, shipped_of
from operators.run import MigrationRun
from storage_backends.base import Role, VolumeSpec
from wavelift.manifest.plan import GIB
from wavelift.manifest.route import Carrier
from wavelift.manifest.schema import Offline


class Archives(Protocol):
    """What the agent (`written`, `checked`) and the gateway (`read`) are told. `sizes` in bytes by disk; answers are
    descriptors by disk. Who only reads gets no right to write."""

    @property
    def arrival_seconds(self) -> float:
        """How long a gateway waits for what it is to read."""

    def written(self, sizes: Mapping[str, int], generation: int) -> dict[str, dict[str, Any]]: ...

    def checked(self, sizes: Mapping[str, int]) -> dict[str, dict[str, Any]]: ...

    def read(self, sizes: Mapping[str, int]) -> dict[str, dict[str, Any]]: ...


class StoredArchives:
    """In the backend that the manifest names; made when they are first asked for."""

    arrival_seconds = 0.0

    def __init__(self, run: MigrationRun) -> None:
        self._run = run
        self._backend = run.archive()

    def written(self, sizes: Mapping[str, int], generation: int) -> dict[str, dict[str, Any]]:
        labels = self._run.labels()
        return {
            disk: self._backend.sink(volume, labels, generation).model_dump()
            for disk, volume in self.volumes(sizes).items()
        }

    def checked(self, sizes: Mapping[str, int]) -> dict[str, dict[str, Any]]:
        return self.read(sizes)

    def read(self, sizes: Mapping[str, int]) -> dict[str, dict[str, Any]]:
        return {disk: self._backend.source(volume).model_dump() for disk, volume in self.volumes(sizes).items()}

    def volumes(self, sizes: Mapping[str, int]) -> dict[str, str]:
        """Ids by disk."""
        return {
            disk: self._backend.create_volume(
                self._run.labels(Role.REPLICA, disk), VolumeSpec(max(1, -(-size // GIB)), "archive")
            ).id
            for disk, size in sizes.items()
        }


class ShippedArchives:
    """On disks that are mounted where the agent runs, and later where the gateway does. Airflow never sees them."""

    def __init__(self, run: MigrationRun, offline: Offline) -> None:
        self._run = run
        self._offline = offline
        self._connection = find_connection(offline.connection)

    @property
    def arrival_seconds(self) -> float:
        return self._offline.arrival

    def written(self, sizes: Mapping[str, int], generation: int) -> dict[str, dict[str, Any]]:
        return self._in(self._offline.write, sizes)

    def checked(self, sizes: Mapping[str, int]) -> dict[str, dict[str, Any]]:
        return self._in(self._offline.write, sizes)

    def read(self, sizes: Mapping[str, int]) -> dict[str, dict[str, Any]]:
        return self._in(self._offline.read, sizes)

    def _in(self, folders: list[str], sizes: Mapping[str, int]) -> dict[str, dict[str, Any]]:
        return {
            disk: shipped_of(self._connection, self._run.labels(Role.REPLICA, disk), folders).model_dump()
            for disk in sizes
        }


def archives_of(run: MigrationRun, carrier: Carrier) -> Archives:
    """For the carriers that are archives."""
    if carrier is not Carrier.DISKS:
        return StoredArchives(run)
    assert run.manifest.offline is not None, "the schema requires it for this route"
    return ShippedArchives(run, run.manifest.offline)
