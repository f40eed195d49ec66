"""The kinds of fault, and what each needs to know."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from wavelift.localcloud.states import (
    PASSAGES,
    DiskStatus,
    ImageStatus,
    InstanceStatus,
    SnapshotStatus,
    Status,
    TaskStatus,
)

Service = Literal["ecs", "oss", "sts"]
# Where a fault happens: before the action, once it is carried out, in the reply to it, at the end of a passing state,
# in a copy of a disk.
Point = Literal["request", "done", "reply", "transition", "copy"]
# Of each slot a call takes one fault at most.
Slot = Literal["outcome", "delay", "lag", "crc", "body", "pace"]

EVERYWHERE: frozenset[Service] = frozenset({"ecs", "oss", "sts"})
ECS: frozenset[Service] = frozenset({"ecs"})
OSS: frozenset[Service] = frozenset({"oss"})


class Fault(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    services: ClassVar[frozenset[Service]] = EVERYWHERE
    point: ClassVar[Point] = "request"
    slot: ClassVar[Slot] = "outcome"
    # The only action it can spoil.
    only: ClassVar[str] = ""

    kind: str


class Throttle(Fault):
    """Too many requests; with `retry_after_ms`, ECS says when to come back."""

    kind: Literal["throttle"]
    code: str | None = None
    retry_after_ms: int | None = Field(default=None, ge=1)


class InternalError(Fault):
    kind: Literal["internal-error"]


class Unavailable(Fault):
    kind: Literal["unavailable"]


class NoStock(Fault):
    services = ECS
    kind: Literal["no-stock"]


class Quota(Fault):
    services = ECS
    kind: Literal["quota"]
    code: str = "QuotaExceed.ElasticQuota"


class Forbidden(Fault):
    kind: Literal["forbidden"]


class Error(Fault):
    """Any error of the service."""

    kind: Literal["error"]
    code: str = Field(min_length=1)
    message: str = "A fault rule asks for this error."
    status: int = Field(default=400, ge=400, le=599)


class BadGateway(Fault):
    """A proxy's page instead of the service's answer."""

    kind: Literal["bad-gateway"]


class Reset(Fault):
    """The connection is reset before anything was done."""

    kind: Literal["reset"]


class DropReply(Fault):
    """The action is carried out, then the connection ends without a reply. What is refused is replied to."""

    point = "done"
    kind: Literal["drop-reply"]


class Delay(Fault):
    """The action is carried out at once and answered late."""

    slot = "delay"
    kind: Literal["delay"]
    seconds: float = Field(gt=0, le=3600)


class Stale(Fault):
    """Describe* and List* answer what was true some seconds ago."""

    services = ECS
    slot = "lag"
    kind: Literal["stale"]
    seconds: float = Field(gt=0, le=3600)


class WrongCrc(Fault):
    services, point, slot = OSS, "reply", "crc"
    kind: Literal["wrong-crc"]


class CorruptBody(Fault):
    """One byte of the object is another (the middle one); length and CRC header are the true ones."""

    services, point, slot, only = OSS, "reply", "body", "GetObject"
    kind: Literal["corrupt-body"]
    offset: int | None = Field(default=None, ge=0)


class TruncatedBody(Fault):
    """The connection ends within the object (in the middle)."""

    services, point, slot, only = OSS, "reply", "body", "GetObject"
    kind: Literal["truncated-body"]
    after_bytes: int | None = Field(default=None, ge=0)


class SlowBody(Fault):
    services, point, slot, only = OSS, "reply", "pace", "GetObject"
    kind: Literal["slow-body"]
    bytes_per_second: int = Field(ge=1)


STATES: dict[str, type[Status]] = {
    "disk": DiskStatus,
    "snapshot": SnapshotStatus,
    "image": ImageStatus,
    "instance": InstanceStatus,
    "task": TaskStatus,
}


class FailedTransition(Fault):
    """A passing state ends as it ends when its work fails."""

    services, point = ECS, "transition"
    kind: Literal["failed-transition"]
    of: Literal["disk", "snapshot", "image", "instance", "task"]
    state: str

    @field_validator("state")
    @classmethod
    def _passing(cls, state: str, info: ValidationInfo) -> str:
        if "of" in info.data:
            kind = STATES[info.data["of"]]
            # What ends in one way only cannot fail: an instance that stops is stopped.
            known = [s.value for s, way in PASSAGES.items() if isinstance(s, kind) and way.failed is not way.end]
            if state not in known:
                raise ValueError(f"must be one of {', '.join(known)}, not {state!r}")
        return state


class DiskFull(Fault):
    """The cloud's own storage has no room for the file of a disk or snapshot."""

    services, point = ECS, "copy"
    kind: Literal["disk-full"]
    of: Literal["disk", "snapshot"]


AnyFault = Annotated[
    Throttle
    | InternalError
    | Unavailable
    | NoStock
    | Quota
    | Forbidden
    | Error
    | BadGateway
    | Reset
    | DropReply
    | Delay
    | Stale
    | WrongCrc
    | CorruptBody
    | TruncatedBody
    | SlowBody
    | FailedTransition
    | DiskFull,
    Field(discriminator="kind"),
]
