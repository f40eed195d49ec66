"""What the model gives and takes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    NORMAL = "Normal"
    MULTIPART = "Multipart"
    APPENDABLE = "Appendable"


@dataclass(frozen=True)
class Bucket:
    name: str
    created: int
    acl: str
    storage_class: str
    lifecycle: str | None = None  # the document as it was given


@dataclass(frozen=True)
class Meta:
    """What is said about an object beside its content. Names in lower case."""

    headers: Mapping[str, str] = field(default_factory=dict)  # Content-Type and the like
    user: Mapping[str, str] = field(default_factory=dict)  # without x-oss-meta-
    tags: Mapping[str, str] = field(default_factory=dict)
    acl: str = "default"
    storage_class: str = "Standard"

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def load(text: str) -> "Meta":
        return Meta(**json.loads(text))


@dataclass(frozen=True)
class Piece:
    """Some bytes of a file; a content is pieces in a row."""

    blob: str
    start: int
    length: int


@dataclass(frozen=True)
class Object:
    bucket: str
    key: str
    content: int  # names the pieces; 0 has none
    size: int
    etag: str  # without quotes
    crc64: int
    modified: int
    kind: Kind
    meta: Meta


@dataclass(frozen=True)
class Upload:
    id: str
    bucket: str
    key: str
    initiated: int
    meta: Meta


@dataclass(frozen=True)
class Part:
    number: int
    content: int
    size: int
    etag: str
    crc64: int
    modified: int
