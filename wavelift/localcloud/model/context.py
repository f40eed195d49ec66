"""What every part of the model shares."""

import os
from dataclasses import dataclass, field
from typing import TypeVar

from wavelift.localcloud.disks import DiskFiles
from wavelift.localcloud.engine import Engine
from wavelift.localcloud.entities import REGION, Disk, Entity, Image, Instance, Job, SecurityGroup, Snapshot
from wavelift.localcloud.errors import ApiError, not_found
from wavelift.localcloud.locks import KeyedLocks
from wavelift.localcloud.model.quotas import Quotas
from wavelift.localcloud.runtimes.base import Folders, Runtime
from wavelift.localcloud.runtimes.hosts import Hosts
from wavelift.localcloud.runtimes.machines import Machines
from wavelift.localcloud.states import Profile
from wavelift.localcloud.store import Store, Transaction

E = TypeVar("E", bound=Entity)

# How an id of each kind is called in requests and error codes.
PARAMETER: dict[type[Entity], str] = {
    Disk: "DiskId",
    Snapshot: "SnapshotId",
    Image: "ImageId",
    Instance: "InstanceId",
    SecurityGroup: "SecurityGroupId",
    Job: "TaskId",
}


def host_memory() -> int:
    """MiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**2


@dataclass(frozen=True)
class Options:
    profile: Profile = Profile.FAST
    host_instances: bool = False
    data_snapshot_images: bool = True
    # How long an instance may take to shut down before it is switched off.
    grace: float = 20.0
    # MiB for all machines together.
    memory: int = field(default_factory=lambda: host_memory() // 2)
    quotas: Quotas = field(default_factory=Quotas)
    # Disk categories and instance types that a zone does not have: (zone, name).
    withheld: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True)
class Context:
    options: Options
    store: Store
    engine: Engine
    files: DiskFiles
    folders: Folders
    locks: KeyedLocks
    machines: Machines
    hosts: Hosts

    def runtime(self, instance: Instance) -> Runtime:
        return self.hosts if instance.on_host else self.machines


def find(tx: Transaction, kind: type[E], identifier: str) -> E:
    entity = tx.get(kind, identifier)
    if entity is None:
        raise not_found(PARAMETER[kind], identifier)
    return entity


def check_region(region: str | None) -> None:
    if region is not None and region != REGION:
        raise ApiError("InvalidRegionId.NotFound", "The specified RegionId does not exist.")


def disk_lock(identifier: str) -> str:
    return f"disk {identifier}"


def instance_lock(identifier: str) -> str:
    """Sorts after every disk's lock."""
    return f"instance {identifier}"
