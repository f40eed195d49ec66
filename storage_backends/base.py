"""The storage abstraction: what every backend offers, whatever stands behind it.

The control half makes, finds and deletes things; the data half hands out small descriptors which an agent or a
gateway opens by itself. Every call is idempotent: what the same labels name is found before it is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from wavelift.blocks.descriptor import SinkDescriptor

TAG_PREFIX = "wavelift:"


class Kind(StrEnum):
    INSTANCE = "instance"
    VOLUME = "volume"
    SNAPSHOT = "snapshot"
    IMAGE = "image"


class State(StrEnum):
    PENDING = "pending"
    READY = "ready"
    STOPPED = "stopped"
    FAILED = "failed"


class Role(StrEnum):
    """What a thing is for. Replica volumes and snapshots hold generations; clones are prepared, then imaged."""

    GATEWAY = "gateway"
    REPLICA = "replica"
    CLONE = "clone"
    PREPARED = "prepared"
    TARGET = "target"


@dataclass(frozen=True)
class Labels:
    """The tags that make a thing findable; together they name one thing of one kind."""

    wave: str
    migration: str
    run: str
    role: Role | None = None
    disk: str | None = None
    generation: int | None = None

    def tags(self) -> dict[str, str]:
        """As cloud tags, unset fields left out."""
        values = {
            "wave": self.wave,
            "migration": self.migration,
            "run": self.run,
            "role": self.role,
            "disk": self.disk,
            "generation": self.generation,
        }
        return {TAG_PREFIX + name: str(value) for name, value in values.items() if value is not None}

    def name(self) -> str:
        """A name for people, unique within the run and kind."""
        parts = [self.wave, self.migration, self.run, self.role, self.disk]
        if self.generation is not None:
            parts.append(f"g{self.generation}")
        return "-".join(str(part) for part in parts if part)


@dataclass(frozen=True)
class Resource:
    """A thing in the backend, as last read. `progress` is 0..100 where the backend tells."""

    kind: Kind
    id: str
    state: State
    status: str
    name: str = ""
    size_gib: int = 0
    progress: int | None = None
    attached_to: str = ""
    address: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def tag(self, name: str) -> str:
        """The value of the tag `wavelift:<name>`, empty when absent."""
        return self.tags.get(TAG_PREFIX + name, "")


@dataclass(frozen=True)
class Capabilities:
    """What this backend can do, and how often it may be asked."""

    bootable: bool
    poll_seconds: float


@dataclass(frozen=True)
class VolumeSpec:
    """A volume to be made: size in GiB, category and level as the manifest names them."""

    size_gib: int
    category: str
    performance_level: str | None = None


@dataclass(frozen=True)
class InstanceSpec:
    """An instance to be made from an image."""

    image_id: str
    instance_type: str
    vswitch: str
    security_group: str
    disk_category: str
    system_gib: int
    performance_level: str | None = None
    public_ip: bool = False


class StorageBackend(Protocol):
    """What every backend offers. All methods raise BackendError subclasses and are safe to repeat."""

    def capabilities(self) -> Capabilities: ...

    def check_access(self) -> None:
        """Raise unless the endpoint answers and accepts the credentials for this region and zone."""

    def create_volume(self, labels: Labels, spec: VolumeSpec) -> Resource: ...

    def snapshot(self, volume_id: str, labels: Labels) -> Resource:
        """Begin a snapshot; poll `get` until it is READY."""

    def clone(self, snapshot: Resource, labels: Labels, spec: VolumeSpec) -> Resource: ...

    def get(self, kind: Kind, resource_id: str) -> Resource: ...

    def list(self, labels: Labels, kind: Kind | None = None) -> Sequence[Resource]:
        """Everything that carries all of these labels."""

    def delete(self, resource: Resource) -> None:
        """Delete it, or do nothing where it is gone; Conflict while something still needs it."""

    def sink(self, volume_id: str, labels: Labels, generation: int) -> SinkDescriptor:
        """Where an agent sends packs of that generation, with a short-lived credential for just this volume."""


class BootableBackend(StorageBackend, Protocol):
    """A backend that also runs machines: the gateway beside the volumes, and what was migrated."""

    def check_target(self, spec: InstanceSpec) -> Sequence[str]:
        """Every reason why such an instance could not be run here; empty when none is known."""

    def ensure_gateway(self, labels: Labels, vswitch: str) -> Resource: ...

    def gateway_url(self, gateway: Resource) -> str: ...

    def gateway_fingerprint(self, labels: Labels) -> str:
        """Of the certificate that the gateway of that run shows, as hex."""

    def gateway_token(self, labels: Labels) -> str:
        """A short-lived control token for the gateway of that run."""

    def attach(self, volume_id: str, instance_id: str) -> None:
        """Attach and wait until the instance has it."""

    def detach(self, volume_id: str) -> None:
        """Detach and wait until the volume is free."""

    def create_image(self, labels: Labels, snapshots: Sequence[Resource]) -> Resource:
        """An image of several disks; the first snapshot is the system disk."""

    def run_instance(self, labels: Labels, spec: InstanceSpec) -> Resource: ...

    def console(self, instance_id: str) -> str: ...

    def screenshot(self, instance_id: str) -> bytes:
        """What the instance's screen shows now, as PNG."""
