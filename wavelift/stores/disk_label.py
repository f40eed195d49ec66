"""What names an offline disk: the file at its root that says which disk of which set it is. See docs/offline.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from blake3 import blake3
from pydantic import Field, TypeAdapter

from wavelift.blocks.files import write_durably
from wavelift.stores.base import StoreError

FILE = "wavelift-disk.json"
VERSION = 1
_MAX_BYTES = 1 << 20
# What a file system of ext4 takes for its own label.
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,15}")


class DiskRefused(StoreError):
    """A folder that is no offline disk, or not one that can be used together with the others."""

    default_code = "disk_refused"


class DiskMissing(StoreError):
    """What is asked for is, or may be, on disks of the set that are not here; `labels` are theirs."""

    default_code = "disk_missing"

    def __init__(self, what: str, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        super().__init__(f"{what}: missing is {', '.join(labels)}.", "Attach and mount it, and name its folder too.")


Label = Annotated[str, Field(pattern=f"^{LABEL.pattern}$")]
Hex = Annotated[str, Field(pattern="^[0-9a-f]{16,32}$")]


@dataclass(frozen=True)
class Member:
    """A disk of a set: `disk` is its own id, `number` counts from 1."""

    disk: Hex
    number: Annotated[int, Field(ge=0)]
    label: Label


@dataclass(frozen=True)
class DiskLabel(Member):
    """`set` is the id of its set, None (with the number 0) for a disk that was made ready and belongs to none yet;
    `members` are all disks of the set that this one knows of."""

    set: Hex | None
    members: tuple[Member, ...]
    made_at: str

    @property
    def member(self) -> Member:
        return Member(self.disk, self.number, self.label)


_DECODER = TypeAdapter(DiskLabel)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def encode_label(label: DiskLabel) -> bytes:
    fields = {"version": VERSION, **asdict(label)}
    return json.dumps({**fields, "checksum": _checksum(fields)}, indent=1).encode() + b"\n"


def write_label(folder: Path, label: DiskLabel) -> None:
    """Raises OSError."""
    write_durably(folder / FILE, encode_label(label))


def read_label(folder: Path) -> DiskLabel | None:
    """None where there is none. Raises `DiskRefused` for a damaged one, OSError."""
    try:
        with (folder / FILE).open("rb") as file:
            raw = file.read(_MAX_BYTES)
    except FileNotFoundError:
        folder.stat()
        return None
    try:
        fields = json.loads(raw)
        if not isinstance(fields, dict) or fields.pop("checksum", None) != _checksum(fields):
            raise ValueError
        version = fields.pop("version")
        if version == VERSION:
            return _DECODER.validate_json(json.dumps(fields), strict=True)
    except (ValueError, KeyError):
        raise DiskRefused(
            f"{folder / FILE} is damaged.",
            f"Bring it back from another copy; the other disks of its set name this one in their {FILE}.",
        ) from None
    raise DiskRefused(f"{folder} has a label of version {version}; this reads {VERSION}.", "Use the newer Wavelift.")


def members_of(labels: Iterable[DiskLabel]) -> dict[str, Member]:
    """All that these disks know of, by id."""
    found = {each.disk: each for label in labels for each in (*label.members, label.member)}
    return dict(sorted(found.items(), key=lambda item: (item[1].number, item[0])))


def _checksum(fields: dict[str, object]) -> str:
    return blake3(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
