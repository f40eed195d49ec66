"""The storage abstraction: what every backend offers, whatever stands behind it.

The control half makes, finds and deletes things; the data half hands out small descriptors which an agent or a
gateway opens by itself. Every call is idempotent: what the same labels name is found before it is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

from wavelift.archive.descriptor import BucketArchive, DisksArchive
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
    number: int | None = None

    def tags(self) -> dict[str, str]:
        """As cloud tags, unset fields left out."""
        values = {
            "wave": self.wave,
            "migration": self.migration,
            "run": self.run,
            "role": self.role,
            "disk": self.disk,
            "generation": self.generation,
            "number": self.number,
        }
        return {TAG_PREFIX + name: str(value) for name, value in values.items() if value is not None}

    def name(self) -> str:
        """A name for people, unique within the run and kind."""
        parts = [self.wave, self.migration, self.run, self.role, self.disk]
        if self.generation is not None:
            parts.append(f"g{self.generation}")
        if self.number is not None:
            parts.append(str(self.number))
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
    """What this backend can do, and how often it may be asked.

    `carrier`: what takes its packs. Packs go to a gateway straight away, which writes them; those in a bucket or on
    disks stay packs, and can be read from there.
    """

    bootable: bool
    poll_seconds: float
    carrier: Literal["gateway", "bucket", "disks"] = "gateway"


class ImageStrategy(StrEnum):
    """How prepared disks become a machine: as an image made of their snapshots; or, where the account may not make
    a system disk of a data disk's snapshot, written over the system disk of an instance made for that, the donor."""

    DEVICE_MAPPING = "device mapping"
    DONOR = "donor"


class Firmware(StrEnum):
    """What starts a machine's boot loader."""

    BIOS = "bios"
    UEFI = "uefi"


@dataclass(frozen=True)
class GatewayAccess:
    """How to reach the gateway service on an instance: a short-lived control token, and its certificate as hex."""

    url: str
    token: str = field(repr=False)
    fingerprint: str


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

    def sink(self, volume_id: str, labels: Labels, generation: int) -> SinkDescriptor | BucketArchive | DisksArchive:
        """Where an agent sends packs of that generation, with a short-lived credential for just this volume."""


class ReadableBackend(StorageBackend, Protocol):
    """A backend that keeps generations as archives, which a gateway or an agent reads."""

    def source(self, resource_id: str) -> BucketArchive | DisksArchive:
        """The archive that holds a volume's or a snapshot's generations, with a short-lived credential to read just
        this one. Raises NotFound."""


class BootableBackend(StorageBackend, Protocol):
    """A backend that also runs machines: the gateway beside the volumes, and what was migrated."""

    def sink(self, volume_id: str, labels: Labels, generation: int) -> SinkDescriptor:
        """Of the gateway."""

    def check_target(self, spec: InstanceSpec, volumes: Sequence[VolumeSpec] = ()) -> Sequence[str]:
        """Every reason why such an instance with such volumes could not be had here; empty when none is known."""

    def ensure_gateway(self, labels: Labels, vswitch: str, disks: int = 16) -> Resource:
        """The running gateway of these labels, sized for so many disks; one that has stopped is replaced."""

    def use_gateway(self, labels: Labels, vswitch: str, disks: int, user: Labels) -> Resource:
        """The same, and it is not removed before that migration run has left it."""

    def leave_gateway(self, gateway: Resource, user: Labels) -> bool:
        """True where nobody uses it any more, and it was removed; what was attached to it is free then."""

    def remove_gateway(self, gateway: Resource) -> None:
        """One that is beyond help, whoever uses it: `ensure_gateway` makes another."""

    def gateways_used(self, labels: Labels, user: Labels) -> Sequence[Resource]:
        """Those with these labels which that migration run uses, in the order of their numbers."""

    def gateway_of(self, volume_id: str) -> Resource:
        """The gateway that a volume is attached to. Raises NotFound."""

    def gateway_access(self, gateway: Resource, labels: Labels) -> GatewayAccess:
        """For the control half of that migration run."""

    def attach(self, volume_id: str, instance_id: str, *, bootable: bool = False) -> None:
        """Attach and wait until the instance has it; `bootable`: as the system disk it came with."""

    def detach(self, volume_id: str) -> None:
        """Detach and wait until the volume is free."""

    def create_image(
        self, labels: Labels, snapshots: Sequence[Resource], firmware: Firmware = Firmware.BIOS
    ) -> Resource:
        """An image of several disks; the first snapshot is the system disk."""

    def image_strategy(self) -> ImageStrategy | None:
        """What the account may do; None while it has no snapshot of a data disk that could be tried."""

    def run_instance(self, labels: Labels, spec: InstanceSpec) -> Resource: ...

    def create_donor(self, labels: Labels, spec: InstanceSpec) -> Resource:
        """An instance whose system disk is there to be written over; it is never started as it is."""

    def donor_disk(self, donor: Resource, labels: Labels) -> Resource:
        """The system disk that the donor of these labels came with, wherever it is attached now. Raises NotFound."""

    def give(self, volume_id: str) -> None:
        """A volume that is attached becomes its instance's own: it is deleted with it, and not listed."""

    def disks_of(self, instance_id: str) -> Sequence[Resource]:
        """What is attached to an instance, the system disk first."""

    def mark(self, resource: Resource, name: str, value: str) -> None:
        """Sets the tag `wavelift:<name>`."""

    def start_instance(self, instance_id: str) -> None:
        """Begin to start it where it is stopped."""

    def prune_snapshots(self, labels: Labels, keep: int) -> Sequence[Resource]:
        """Delete all but the last `keep` generations of each volume, but none that something uses; what was deleted."""

    def console(self, instance_id: str) -> str: ...

    def screenshot(self, instance_id: str) -> bytes:
        """What the instance's screen shows now, as PNG."""
