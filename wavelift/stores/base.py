"""Where packs and block maps lie at rest: objects by key, each put whole.

A key is text of parts joined by "/"; the parts of none are the first ones of another's, as a directory cannot hold
both. What a put has returned from is durable, and nobody ever sees half of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

from wavelift.blocks.errors import BlockError

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]{0,199}")
MAX_KEY = 800


class StoreError(BlockError):
    """A store could not do what was asked. `retryable`: the same call may go well later."""

    default_code = "store_error"
    retryable: ClassVar[bool] = False


class NotThere(StoreError):
    """There is no object of that `key`: the store has said so itself. Silence is never taken for it."""

    default_code = "not_there"

    def __init__(self, store: str, key: str) -> None:
        self.store, self.key = store, key
        super().__init__(f"{store} has no {key}.", "Bring it back from another copy.")


class AlreadyThere(StoreError):
    """A put of something new found an object of that `key`."""

    default_code = "already_there"

    def __init__(self, store: str, key: str) -> None:
        self.store, self.key = store, key
        super().__init__(f"{store} has {key} already.", "Look at what is there before writing it anew.")


class Denied(StoreError):
    """The credentials are wrong, have expired, or lack a right."""

    default_code = "denied"


class Full(StoreError):
    """No room is left."""

    default_code = "store_full"


class Corrupted(StoreError):
    """What arrived, here or there, is not what was sent."""

    default_code = "corrupted"
    retryable = True


class Unavailable(StoreError):
    """The store did not answer, or has too much to do."""

    default_code = "store_unavailable"
    retryable = True


@dataclass(frozen=True)
class Entry:
    """An object in a list: its size in bytes, and when it was put in seconds since the epoch, by the store's clock."""

    key: str
    size: int
    put_at: float


class Store(Protocol):
    """All methods raise `StoreError` and its kinds, and may be called from several threads."""

    @property
    def name(self) -> str:
        """For people, as they would write it."""

    def put(self, key: str, data: bytes | bytearray | memoryview, *, new: bool = False) -> None:
        """Replace the object, or make it. With `new` raises `AlreadyThere` where there is one: of several that make
        the same one, one succeeds. `data` stays as it is even where this fails: a store that nobody waits for any
        longer may be reading it."""

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """`length` bytes from `start` on (to the end without), fewer where the object ends. Raises `NotThere`."""

    def size(self, key: str) -> int:
        """In bytes. Raises `NotThere`."""

    def list(self, prefix: str) -> Iterator[Entry]:
        """Every object whose key begins with the prefix, in the order of keys."""

    def delete(self, keys: Iterable[str]) -> None:
        """These objects, as far as they are there."""


def checked(key: str) -> str:
    """The key. Raises ValueError for one that not every store can hold: a defect of who made it."""
    if len(key) > MAX_KEY or not all(_PART.fullmatch(part) for part in key.split("/")):
        raise ValueError(f"{key!r} is no key of an object")
    return key
