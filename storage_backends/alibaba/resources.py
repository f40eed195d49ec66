"""ECS answers as the abstraction's resources: one pure function per kind."""

from __future__ import annotations

from typing import Any

from storage_backends.base import Kind, Resource, State

_VOLUME = {"Available": State.READY, "In_use": State.READY}
_SNAPSHOT = {"accomplished": State.READY, "failed": State.FAILED}
_IMAGE = {"Available": State.READY, "CreateFailed": State.FAILED, "UnAvailable": State.FAILED}
_INSTANCE = {"Running": State.READY, "Stopped": State.STOPPED}


def volume(raw: dict[str, Any]) -> Resource:
    return Resource(
        kind=Kind.VOLUME,
        id=raw["DiskId"],
        state=_VOLUME.get(raw["Status"], State.PENDING),
        status=raw["Status"],
        name=raw.get("DiskName", ""),
        size_gib=int(raw.get("Size", 0)),
        attached_to=raw.get("InstanceId") or "",
        tags=_tags(raw, "TagKey", "TagValue"),
    )


def snapshot(raw: dict[str, Any]) -> Resource:
    return Resource(
        kind=Kind.SNAPSHOT,
        id=raw["SnapshotId"],
        state=_SNAPSHOT.get(raw["Status"], State.PENDING),
        status=raw["Status"],
        name=raw.get("SnapshotName", ""),
        size_gib=int(raw.get("SourceDiskSize", 0)),
        progress=_percent(raw.get("Progress")),
        tags=_tags(raw, "TagKey", "TagValue"),
    )


def image(raw: dict[str, Any]) -> Resource:
    return Resource(
        kind=Kind.IMAGE,
        id=raw["ImageId"],
        state=_IMAGE.get(raw["Status"], State.PENDING),
        status=raw["Status"],
        name=raw.get("ImageName", ""),
        size_gib=int(raw.get("Size", 0)),
        progress=_percent(raw.get("Progress")),
        tags=_tags(raw, "TagKey", "TagValue"),
    )


def instance(raw: dict[str, Any]) -> Resource:
    public = (raw.get("PublicIpAddress") or {}).get("IpAddress") or []
    private = ((raw.get("VpcAttributes") or {}).get("PrivateIpAddress") or {}).get("IpAddress") or []
    return Resource(
        kind=Kind.INSTANCE,
        id=raw["InstanceId"],
        state=_INSTANCE.get(raw["Status"], State.PENDING),
        status=raw["Status"],
        name=raw.get("InstanceName", ""),
        address=(public or private or [""])[0],
        tags=_tags(raw, "TagKey", "TagValue"),
    )


def _tags(raw: dict[str, Any], key: str, value: str) -> dict[str, str]:
    return {tag[key]: tag.get(value, "") for tag in (raw.get("Tags") or {}).get("Tag") or []}


def _percent(text: str | None) -> int | None:
    return int(text.rstrip("%")) if text and text.rstrip("%").isdigit() else None
