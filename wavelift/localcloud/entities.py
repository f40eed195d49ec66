"""What the cloud keeps: plain values, stored as JSON, without behaviour."""

import secrets
import string
from typing import ClassVar, Literal

from pydantic import BaseModel, Field

from wavelift.localcloud.states import DiskStatus, ImageStatus, InstanceStatus, SnapshotStatus, Status, TaskStatus

REGION = "cn-local"
ZONES = ("cn-local-a", "cn-local-b")
VPC = "vpc-local"
VSWITCHES = {"vsw-local-a": "cn-local-a", "vsw-local-b": "cn-local-b"}
BLOCKS = {"vsw-local-a": "172.16.0.0/24", "vsw-local-b": "172.16.1.0/24"}
DEFAULT_GROUP = "sg-local-default"
HOST_IMAGE = "host-linux"
GIB = 1024**3

_ALPHABET = string.ascii_lowercase + string.digits
DiskType = Literal["system", "data"]


def new_id(prefix: str) -> str:
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(20))


class Busy(BaseModel):
    """An operation under way; survives a restart, so times are of the wall clock."""

    started: float
    due: float


class Entity(BaseModel):
    kind: ClassVar[str]
    prefix: ClassVar[str]

    id: str
    created: float
    name: str = ""
    description: str = ""
    tags: dict[str, str] = Field(default_factory=dict)


class Moving(Entity):
    """An entity with a state. Each subclass narrows `status` to its own enum."""

    status: Status
    busy: Busy | None = None

    def become(self, status: Status) -> None:
        """Raises ValueError for another kind's state."""
        self.status = type(self.status)(status)


class Disk(Moving):
    kind: ClassVar[str] = "disk"
    prefix: ClassVar[str] = "d-"

    status: DiskStatus = DiskStatus.CREATING
    zone: str
    size: int
    category: str
    performance_level: str = ""
    type: DiskType = "data"
    source_snapshot: str = ""
    image: str = ""
    instance: str = ""
    original_instance: str = ""
    device: str = ""
    delete_with_instance: bool = False
    delete_auto_snapshot: bool = True
    bursting: bool = False
    provisioned_iops: int = 0
    # While it is ReIniting: the snapshot that ResetDisk puts back, and whether its instance is to start then.
    resetting: str = ""
    start_after: bool = False
    ever_attached: bool = False
    attached_at: float = 0.0
    detached_at: float = 0.0

    @property
    def serial(self) -> str:
        return self.id.removeprefix("d-")


class Snapshot(Moving):
    kind: ClassVar[str] = "snapshot"
    prefix: ClassVar[str] = "s-"

    status: SnapshotStatus = SnapshotStatus.PROGRESSING
    disk: str
    disk_size: int
    disk_type: DiskType
    copied: bool = False
    # The snapshot it is a copy of, and the image that makes it when its own work does not.
    source_snapshot: str = ""
    maker: str = ""
    retention_days: int = 0
    modified: float = 0.0


class ImageDevice(BaseModel):
    device: str
    type: DiskType
    snapshot: str  # empty for a disk that begins empty
    size: int
    # Where an imported one comes from.
    bucket: str = ""
    object: str = ""
    format: str = ""


class Image(Moving):
    kind: ClassVar[str] = "image"
    prefix: ClassVar[str] = "m-"

    status: ImageStatus = ImageStatus.CREATING
    owner: Literal["self", "system"] = "self"
    architecture: str = "x86_64"
    platform: str = "Others Linux"
    boot_mode: str = "BIOS"
    family: str = ""
    version: str = ""
    license: str = ""
    nvme: bool = False
    imds: str = "v1"
    # The image it is a copy of, and the task that imports it.
    source_image: str = ""
    task: str = ""
    shared_with: dict[str, float] = Field(default_factory=dict)  # account and since when
    devices: list[ImageDevice] = Field(default_factory=list)

    @property
    def system(self) -> ImageDevice | None:
        return next((d for d in self.devices if d.type == "system"), None)


class Instance(Moving):
    kind: ClassVar[str] = "instance"
    prefix: ClassVar[str] = "i-"

    status: InstanceStatus = InstanceStatus.PENDING
    type: str
    image: str
    zone: str
    vswitch: str
    groups: list[str]
    host_name: str = ""
    boot_mode: Literal["BIOS", "UEFI"] = "BIOS"
    key_pair: str = ""
    # Where this host reaches it; the private address that was asked for, if one was, is kept beside it.
    address: str
    private: str = ""
    mac: str
    bandwidth: int = 0
    # CreateInstance gives no public address; AllocatePublicIpAddress does.
    public: bool = True
    user_data: str = ""
    started_at: float = 0.0
    # RunInstances starts what it makes, CreateInstance does not.
    begins_stopped: bool = False
    # The process that is the instance; ticks tell it from a later process with the same id.
    pid: int = 0
    ticks: int = 0
    # How the operation under way was asked for.
    force: bool = False
    reboot: bool = False
    releasing: bool = False

    @property
    def on_host(self) -> bool:
        return self.image == HOST_IMAGE

    @property
    def public_address(self) -> str:
        """Empty where it has none."""
        return self.address if self.public and self.bandwidth else ""

    @property
    def private_address(self) -> str:
        return self.private or self.address


class Job(Moving):
    """What DescribeTasks calls a task."""

    kind: ClassVar[str] = "task"
    prefix: ClassVar[str] = "t-"

    status: TaskStatus = TaskStatus.PENDING
    action: Literal["ImportImage", "ExportImage", "ModifyDiskSpec"]
    resource: str
    bucket: str = ""
    object_prefix: str = ""
    format: str = ""
    # The snapshots an import makes, or the objects an export has made; in the order of the image's devices.
    results: list[str] = Field(default_factory=list)
    finished: float = 0.0
    error: str = ""
    message: str = ""


class Execution(BaseModel):
    """A command on one of its instances."""

    instance: str
    status: str = "Pending"
    # The process in the guest, or on this host; ticks tell a host's process from a later one with its id.
    pid: int = 0
    ticks: int = 0
    stopping: bool = False
    exit_code: int | None = None
    output: str = ""  # Base64
    dropped: int = 0
    started: float = 0.0
    finished: float = 0.0
    stopped: float = 0.0
    error: str = ""


class Invocation(Entity):
    """A command that was sent to instances; `name` and `description` are the command's."""

    kind: ClassVar[str] = "invocation"
    prefix: ClassVar[str] = "t-"

    command: str
    content: str
    timeout: int
    working_dir: str
    executions: list[Execution]


class Rule(BaseModel):
    id: str = Field(default_factory=lambda: new_id("sgr-"))
    protocol: str
    ports: str
    source: str
    policy: str = "Accept"
    priority: int = 1
    description: str = ""
    created: float = 0.0

    def span(self) -> tuple[int, int]:
        first, last = (int(part) for part in self.ports.split("/"))
        return (1, 65535) if first == -1 else (first, last)


class SecurityGroup(Entity):
    kind: ClassVar[str] = "securitygroup"
    prefix: ClassVar[str] = "sg-"

    vpc: str = VPC
    rules: list[Rule] = Field(default_factory=list)


class InstanceType(BaseModel):
    id: str
    cores: int
    memory: int  # GiB

    @property
    def family(self) -> str:
        return self.id.rsplit(".", 1)[0]


INSTANCE_TYPES = {
    kind.id: kind
    for kind in (
        InstanceType(id="ecs.c7.large", cores=2, memory=4),
        InstanceType(id="ecs.c7.xlarge", cores=4, memory=8),
        InstanceType(id="ecs.c7.2xlarge", cores=8, memory=16),
        InstanceType(id="ecs.g7.large", cores=2, memory=8),
        InstanceType(id="ecs.g7.xlarge", cores=4, memory=16),
        InstanceType(id="ecs.g7.2xlarge", cores=8, memory=32),
        InstanceType(id="ecs.g7.4xlarge", cores=16, memory=64),
    )
}
