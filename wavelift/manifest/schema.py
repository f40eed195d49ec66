"""The manifest: what a person writes to move a wave of servers. Unknown fields are refused, never ignored."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from wavelift.blocks.bandwidth import AnyBandwidth, Bandwidth
from wavelift.manifest.route import Route
from wavelift.manifest.wishes import Wishes

SLUG = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(s|m|h|d)$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a duration is a number with a unit: 15s, 10m, 2h or 1d")
    match = _DURATION.match(str(value))
    if match is None:
        raise ValueError(f"{value!r} is no duration; write a number with a unit: 15s, 10m, 2h or 1d")
    return float(match[1]) * _SECONDS[match[2]]


Seconds = Annotated[float, BeforeValidator(_seconds)]
Slug = Annotated[str, Field(pattern=SLUG)]


_BANDWIDTH = "a rate, for example 50MB/s, or a mapping of limit, windows and timezone"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Keep(StrEnum):
    """What a successful migration leaves in the cloud; everything else it made is deleted."""

    INSTANCE = "instance"
    IMAGE = "image"
    SNAPSHOTS = "snapshots"
    VOLUMES = "volumes"


class Cloud(_Strict):
    """Where the wave goes. The connection holds endpoint and credentials, never the manifest."""

    backend: Literal["alibaba"]
    connection: str = Field(description="Airflow connection of type wavelift_alibaba")
    region: str
    zone: str


class Archive(_Strict):
    """Where generations lie on the routes over OSS, and end on the route `archive only`."""

    connection: str = Field(description="Airflow connection of a backend that keeps archives, of type wavelift_oss")


class Offline(_Strict):
    """The disks that carry a full copy: where the agent's machine has them mounted, and later the gateway's."""

    connection: str = Field(description="Airflow connection of type wavelift_offline, which holds the key")
    write: Annotated[list[str], Field(min_length=1, max_length=64, description="folders on the source's side")]
    read: Annotated[list[str], Field(min_length=1, max_length=64, description="folders on the gateway's side")]
    arrival: Seconds = Field(default=30 * 86400.0, description="how long the gateway waits for the disks")


class SourceDisk(_Strict):
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    boot: bool = False
    volume_gib: Annotated[int, Field(ge=1, le=65536)] | None = Field(
        default=None, description="size of its volume in GiB; the smallest that holds the disk when left out"
    )


class Source(_Strict):
    agent: str = Field(description="Airflow connection of type wavelift_agent")
    disks: Annotated[list[SourceDisk], Field(min_length=1, max_length=17)]

    @model_validator(mode="after")
    def _one_boot_disk(self) -> Self:
        ids = [disk.id for disk in self.disks]
        if len(set(ids)) != len(ids):
            raise ValueError(f"disk ids must differ, got {', '.join(ids)}")
        boots = [disk.id for disk in self.disks if disk.boot]
        if len(boots) != 1:
            found = ", ".join(boots) or "none"
            raise ValueError(f"exactly one disk must have `boot: true`, found {found}")
        return self

    @property
    def ordered(self) -> list[SourceDisk]:
        """The boot disk first, the others as written: the order in which the instance sees them."""
        return sorted(self.disks, key=lambda disk: not disk.boot)


class Target(_Strict):
    instance_type: str
    vswitch: str = Field(description="id of the vSwitch")
    security_group: str = Field(description="id or name of the security group")
    disk_category: Literal["cloud_essd", "cloud_efficiency", "cloud_ssd", "cloud_essd_entry", "cloud_auto"] = (
        "cloud_essd"
    )
    performance_level: Literal["PL0", "PL1", "PL2", "PL3"] | None = None
    public_ip: bool = False

    @model_validator(mode="after")
    def _level_needs_essd(self) -> Self:
        if self.performance_level and self.disk_category != "cloud_essd":
            raise ValueError("performance_level goes with disk_category cloud_essd only")
        return self


class Sync(_Strict):
    """Incremental cycles after the full copy; each starts `interval` after the one before ended."""

    cycles: Annotated[int, Field(ge=0, le=1000)] = 1
    interval: Seconds = 900.0
    snapshots: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=7, description="of how many generations the snapshots stay while it runs; an archive keeps all"
    )


class Check(_Strict):
    """One proof that the instance works: a line on its console, or a TCP port that answers."""

    console: Annotated[str, Field(min_length=1)] | None = None
    tcp: Annotated[int, Field(ge=1, le=65535)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.console is None) == (self.tcp is None):
            raise ValueError("a check is either `console: TEXT` or `tcp: PORT`")
        return self

    def __str__(self) -> str:
        return f"console shows {self.console!r}" if self.console else f"TCP port {self.tcp} answers"


class Migration(_Strict):
    name: Slug
    source: Source
    target: Target
    route: Route = Route.DIRECT
    sync: Sync = Sync()
    checks: Annotated[list[Check], Field(min_length=1)]
    bandwidth: AnyBandwidth | None = Field(default=None, description=_BANDWIDTH)
    boot_timeout: Seconds = 900.0
    guest: Wishes = Field(default=Wishes(), description="what the machine is like on the target; default: as it was")
    keep: list[Keep] = [Keep.INSTANCE]


class Manifest(_Strict):
    version: Literal[1]
    wave: Slug
    description: str = ""
    cloud: Cloud
    archive: Archive | None = None
    offline: Offline | None = None
    concurrency: Annotated[int, Field(ge=1, le=100)] = 4
    bandwidth: AnyBandwidth | None = Field(default=None, description=_BANDWIDTH)
    migrations: Annotated[list[Migration], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [migration.name for migration in self.migrations]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"migration names must differ, {', '.join(twice)} is used twice")
        return self

    @model_validator(mode="after")
    def _routes_have_what_they_need(self) -> Self:
        for migration in self.migrations:
            if migration.route.uses_archive and self.archive is None:
                raise ValueError(f"route {migration.route.value!r} of {migration.name} needs a section `archive`")
            if migration.route.seeded and self.offline is None:
                raise ValueError(f"route {migration.route.value!r} of {migration.name} needs a section `offline`")
        return self

    def bandwidth_of(self, migration: Migration) -> Bandwidth | None:
        """A migration's own limit; the wave's is what each gets that has none."""
        return migration.bandwidth or self.bandwidth

    def migration(self, name: str) -> Migration:
        """The migration of that name; KeyError when there is none."""
        for migration in self.migrations:
            if migration.name == name:
                return migration
        raise KeyError(name)
