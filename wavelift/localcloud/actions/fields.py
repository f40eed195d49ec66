"""Fields that many actions have: names, descriptions, filters, and what this cloud does not do."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeVar

from wavelift.localcloud.entities import Entity
from wavelift.localcloud.errors import ApiError, dry_run_passed, invalid
from wavelift.localcloud.rpc.parameters import Parameters

E = TypeVar("E", bound=Entity)

_NAME = re.compile(r"[^\W\d_][\w:.\-]{1,127}")
_PASSWORD_CLASSES = (r"[a-z]", r"[A-Z]", r"[0-9]", r"[^a-zA-Z0-9]")
_DEVICES = frozenset(f"/dev/xvd{letter}" for letter in "bcdefghijklmnopqrstuvwxyz")
_FILTER_TIME = "%Y-%m-%dT%H:%MZ"


def name(p: Parameters, field: str, reserved: tuple[str, ...] = ()) -> str | None:
    """A letter first; then letters, digits, colons, underscores, periods and hyphens: 2 to 128 in all."""
    value = p.text(field)
    if value is not None and (not _NAME.fullmatch(value) or value.startswith(reserved)):
        code = f"Invalid{field.removeprefix('Destination')}.Malformed"
        raise ApiError(code, f"The specified {field} {value!r} is wrongly formed.")
    return value


def description(p: Parameters, field: str = "Description") -> str | None:
    value = p.text(field)
    if value is not None and (not 2 <= len(value) <= 256 or value.startswith(("http://", "https://"))):
        raise ApiError("InvalidDescription.Malformed", f"The specified {field} is wrongly formed.")
    return value


def password(p: Parameters) -> str | None:
    """8 to 30 characters of three kinds."""
    value = p.text("Password")
    if value is not None:
        kinds = sum(re.search(kind, value) is not None for kind in _PASSWORD_CLASSES)
        if not 8 <= len(value) <= 30 or kinds < 3:
            raise ApiError("InvalidPassword.Malformed", 'The specified parameter "Password" is not valid.')
    return value


def device(p: Parameters) -> str | None:
    """Of a data disk."""
    value = p.text("Device")
    if value is not None and value not in _DEVICES:
        raise ApiError("InvalidDevice.Malformed", f"The specified device {value!r} is not /dev/xvdb to /dev/xvdz.")
    return value


def either(p: Parameters, field: str) -> bool | None:
    """A flag that may be absent."""
    return p.flag(field) if p.text(field) is not None else None


def unsupported(p: Parameters, *fields: str) -> None:
    """What would change the outcome, and is not there, is refused rather than ignored."""
    for field in fields:
        if p.text(field) is not None:
            raise invalid(field, "This cloud does not support it.")


def only(p: Parameters, choices: Mapping[str, str]) -> None:
    """Of each field, the one value that describes what is here anyway."""
    for field, value in choices.items():
        if (p.text(field) or value).lower() != value.lower():
            raise invalid(field, f"This cloud supports {value} only.")


def not_encrypted(p: Parameters) -> None:
    if p.flag("Encrypted"):
        raise ApiError("InvalidParameter.EncryptedNotSupported", "This cloud does not encrypt disks.")


def no_resource_group(p: Parameters) -> None:
    if p.text("ResourceGroupId") is not None:
        raise ApiError("InvalidResourceGroup.NotFound", "The ResourceGroup provided does not exist.")


def dry_run(p: Parameters) -> None:
    """For actions whose own checks are done by now."""
    if p.flag("DryRun"):
        raise dry_run_passed()


def created_within(p: Parameters, items: list[E]) -> list[E]:
    """Filter.N.Key CreationStartTime and CreationEndTime; other keys are refused."""
    for each in p.structures("Filter"):
        key, value = each.required("Key"), each.required("Value")
        if key not in {"CreationStartTime", "CreationEndTime"}:
            raise invalid("Filter.Key", "CreationStartTime and CreationEndTime are.")
        try:
            moment = datetime.strptime(value, _FILTER_TIME).replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise invalid("Filter.Value", "A time is written yyyy-MM-ddTHH:mmZ.") from None
        after = key == "CreationStartTime"
        items = [item for item in items if (item.created >= moment if after else item.created <= moment)]
    return items
