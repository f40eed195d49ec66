"""Whose packs a gateway's volume took last: whether it still holds what a copy sent there, or another's content."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from urllib.parse import quote

from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.blocks.errors import SinkError, SinkUnreachable, WrongGateway
from wavelift.blocks.sink import answer_of, connect_control, refusal
from wavelift.pinning import WrongCertificate


@dataclass(frozen=True)
class Taken:
    """Migration and generation of the last pack; while `mark` is the same, no other content was written."""

    migration: str
    generation: int
    mark: str


def mark_of(migration: str, generation: int, attempt: int, turns: int = 0) -> str:
    """`turns`: how often another migration's packs came in between."""
    return f"{migration}:{generation}:{attempt}" + (f":{turns}" if turns else "")


def last_taken(descriptor: SinkDescriptor) -> Taken:
    """Asks once, so that a gateway that is not there is known at once. Raises `SinkError` and its kinds."""
    control: http.client.HTTPConnection | None = None
    try:
        control = connect_control(descriptor)
        path = f"/v1/volumes/{quote(descriptor.volume, safe='')}/taken"
        control.request("GET", path, headers={"Authorization": f"Bearer {descriptor.token}"})
        status, body = answer_of(control.getresponse())
    except WrongCertificate as error:
        raise WrongGateway(descriptor.url, error.pinned, error.shown) from None
    except (OSError, http.client.HTTPException) as error:
        raise SinkUnreachable(
            f"The gateway at {descriptor.url} cannot be reached: {type(error).__name__} {error}.",
            "Check its address, and that it runs.",
        ) from None
    finally:
        if control is not None:
            control.close()
    if status != 200:
        raise refusal(descriptor, status, body)
    try:
        return Taken(str(body["migration"]), int(body["generation"]), str(body["mark"]))
    except (KeyError, TypeError, ValueError):
        raise SinkError(f"{descriptor.url} is not a Wavelift gateway.", "Check the address of the sink.") from None
