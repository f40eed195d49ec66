"""The states of every resource and the moves between them, in one table."""

from dataclasses import dataclass
from enum import Enum


# Plain enums: as strings, the "Creating" of a disk and of an image would be one key.
class DiskStatus(Enum):
    CREATING = "Creating"
    AVAILABLE = "Available"
    ATTACHING = "Attaching"
    IN_USE = "In_use"
    DETACHING = "Detaching"
    REINITING = "ReIniting"


class SnapshotStatus(Enum):
    PROGRESSING = "progressing"
    ACCOMPLISHED = "accomplished"
    FAILED = "failed"


class ImageStatus(Enum):
    WAITING = "Waiting"
    CREATING = "Creating"
    AVAILABLE = "Available"
    CREATE_FAILED = "CreateFailed"
    DEPRECATED = "Deprecated"


class InstanceStatus(Enum):
    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    STOPPED = "Stopped"


class TaskStatus(Enum):
    PENDING = "Pending"
    PROCESSING = "Processing"
    FINISHED = "Finished"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


Status = DiskStatus | SnapshotStatus | ImageStatus | InstanceStatus | TaskStatus


class Profile(Enum):
    FAST = "fast"
    REALISTIC = "realistic"


@dataclass(frozen=True)
class Passage:
    """What becomes of a state that does not last: it ends by itself after some seconds, well or badly.

    `failed` None: what could not be made is taken away again.
    """

    end: Status
    failed: Status | None
    fast: float
    realistic: float

    def seconds(self, profile: Profile) -> float:
        return self.fast if profile is Profile.FAST else self.realistic


PASSAGES: dict[Status, Passage] = {
    DiskStatus.CREATING: Passage(DiskStatus.AVAILABLE, None, 0.1, 5),
    DiskStatus.ATTACHING: Passage(DiskStatus.IN_USE, DiskStatus.AVAILABLE, 0.1, 6),
    DiskStatus.DETACHING: Passage(DiskStatus.AVAILABLE, DiskStatus.IN_USE, 0.1, 30),
    # A disk that is attached to nothing is Available again afterwards (see `model.disk_changes`).
    DiskStatus.REINITING: Passage(DiskStatus.IN_USE, DiskStatus.IN_USE, 0.1, 20),
    SnapshotStatus.PROGRESSING: Passage(SnapshotStatus.ACCOMPLISHED, SnapshotStatus.FAILED, 0.3, 45),
    ImageStatus.CREATING: Passage(ImageStatus.AVAILABLE, ImageStatus.CREATE_FAILED, 0.3, 60),
    TaskStatus.PROCESSING: Passage(TaskStatus.FINISHED, TaskStatus.FAILED, 0.3, 60),
    InstanceStatus.PENDING: Passage(InstanceStatus.STARTING, None, 0.1, 5),
    InstanceStatus.STARTING: Passage(InstanceStatus.RUNNING, InstanceStatus.STOPPED, 0.1, 15),
    InstanceStatus.STOPPING: Passage(InstanceStatus.STOPPED, InstanceStatus.STOPPED, 0.1, 10),
}

# What a request may begin. A state that is not listed here moves only by its passage.
REQUESTED: dict[Status, frozenset[Status]] = {
    DiskStatus.AVAILABLE: frozenset({DiskStatus.ATTACHING, DiskStatus.REINITING}),
    DiskStatus.IN_USE: frozenset({DiskStatus.DETACHING, DiskStatus.REINITING}),
    InstanceStatus.RUNNING: frozenset({InstanceStatus.STOPPING, InstanceStatus.STARTING}),
    InstanceStatus.STOPPED: frozenset({InstanceStatus.STARTING, InstanceStatus.STOPPING}),
}


class IllegalMove(Exception):
    def __init__(self, before: Status, after: Status) -> None:
        super().__init__(f"no move leads from {before!r} to {after!r}")


def check_move(before: Status, after: Status) -> None:
    if after not in REQUESTED.get(before, frozenset()):
        raise IllegalMove(before, after)
