"""What an ECS request names by its id: what faults select it by, and what the caller needs the right to."""

import json
import re
from collections.abc import Iterator, Mapping

from wavelift.localcloud.rpc import specification

PLACES = frozenset({"RegionId", "ZoneId"})
# As policies call them.
_KINDS = {
    "Disk": "disk",
    "Image": "image",
    "Instance": "instance",
    "SecurityGroup": "securitygroup",
    "Snapshot": "snapshot",
}
_PREFIXES = {"d": "disk", "m": "image", "i": "instance", "sg": "securitygroup", "s": "snapshot"}
_KIND = "|".join(_KINDS)
_ABOUT = re.compile(rf"[A-Z][a-z]+({_KIND})(s|Attribute|Status)?")
_TYPED = re.compile(rf"({_KIND})Ids?")


def ids(action: str, parameters: Mapping[str, str]) -> list[str]:
    """Every id: DiskId, DiskIds as a JSON list, InstanceId.1, DataDisk.2.SnapshotId."""
    return [identifier for _, identifier in _named(action, parameters)]


def touched(action: str, parameters: Mapping[str, str]) -> list[str]:
    """Those that are named (disk/d-1); all of the kind that the action is about if it names none of it (disk/*)."""
    found = [f"{kind}/{id}" for name, id in _named(action, parameters) if (kind := _kind(name, id))]
    about = _ABOUT.fullmatch(action)
    if about is None:
        return found or ["*"]
    kind = _KINDS[about[1]]
    return found if any(each.startswith(f"{kind}/") for each in found) else [f"{kind}/*", *found]


def _kind(name: str, identifier: str) -> str | None:
    """By the id itself, as ResourceId may be anything's; by the parameter for an id of another form (host-linux)."""
    prefix, dash, _ = identifier.partition("-")
    if dash and prefix in _PREFIXES:
        return _PREFIXES[prefix]
    typed = _TYPED.fullmatch(name)
    return _KINDS[typed[1]] if typed else None


def _named(action: str, parameters: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each id with the last part of its parameter's name. What the action does not know names nothing."""
    for parameter, value in sorted(parameters.items()):
        name = [part for part in parameter.split(".") if not part.isdigit()][-1]
        if value and name.endswith(("Id", "Ids")) and name not in PLACES and specification.has(action, parameter):
            yield from ((name, identifier) for identifier in _listed(value))


def _listed(value: str) -> list[str]:
    """A JSON list, a list with commas, or one id."""
    try:
        listed = json.loads(value)
        return [str(each) for each in listed] if isinstance(listed, list) else [value]
    except (ValueError, RecursionError):
        return value.split(",")
