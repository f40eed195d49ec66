"""What an operation is given and what it gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from wavelift.localcloud.oss.model.blobs import Reader, Staged
from wavelift.localcloud.oss.model.store import ObjectStore
from wavelift.localcloud.oss.wire.request import Request


class Body(Enum):
    """What becomes of the request's body."""

    DOCUMENT = "kept in memory"
    CONTENT = "written to a file as it comes"


@dataclass(frozen=True)
class Call:
    request: Request
    store: ObjectStore
    region: str
    allow: Callable[[str, str, str], None]  # raises AccessDenied; action, bucket and key
    document: bytes = b""
    staged: Staged | None = None

    def allow_acl(self, acl: str | None) -> None:
        """Of an object that is made; whoever may only put objects must not publish them."""
        if acl:
            self.allow("PutObjectAcl", self.bucket, self.key)

    def with_document(self, document: bytes) -> "Call":
        return replace(self, document=document)

    def with_content(self, staged: Staged) -> "Call":
        return replace(self, staged=staged)

    @property
    def bucket(self) -> str:
        return self.request.bucket

    @property
    def key(self) -> str:
        return self.request.key

    @property
    def content(self) -> Staged:
        if self.staged is None:
            raise AssertionError("not an operation with content")
        return self.staged


@dataclass(frozen=True)
class Reply:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    content: tuple[Reader, int, int] | None = None  # from the first to before the last byte; closed by who sends it


def nothing(_: Call) -> None:
    pass


@dataclass(frozen=True)
class Operation:
    name: str  # as the API reference calls it
    action: str  # as policies call it, without oss:; empty where the operation asks for every key by itself
    run: Callable[[Call], Reply]
    body: Body = Body.DOCUMENT
    before: Callable[[Call], None] = nothing  # refuses what would be refused after a long upload


def xml_reply(body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(200, {"Content-Type": "application/xml", **(headers or {})}, body)
