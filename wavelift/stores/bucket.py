"""What the stores in buckets have in common: where one lies, and with what credentials."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from wavelift.stores.base import StoreError

T = TypeVar("T")

# What both protocols take in one request.
DELETE_AT_ONCE = 1000
CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0


class BadBucket(StoreError):
    """A bucket that cannot be asked for: its name or its endpoint is none."""

    default_code = "bad_bucket"

    def __init__(self, bucket: Bucket, why: str) -> None:
        self.bucket, self.endpoint = bucket.bucket, bucket.endpoint
        super().__init__(
            f"The bucket {bucket.bucket!r} at {bucket.endpoint!r} cannot be asked for: {why}",
            "Correct its name (3 to 63 small letters, digits and '-') or its endpoint (a URL).",
        )


@dataclass(frozen=True)
class Bucket:
    """`endpoint` is a URL; keys lie under `prefix`. `token` is that of temporary credentials, empty for others;
    `ca_file` has certificates, in PEM, that are trusted instead of the usual ones."""

    endpoint: str
    bucket: str
    prefix: str
    region: str
    access_key_id: str
    access_key_secret: str = field(repr=False)
    token: str = field(default="", repr=False)
    by_path: bool = False
    ca_file: str = ""

    def key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def short(self, key: str) -> str:
        return key.removeprefix(f"{self.prefix}/") if self.prefix else key


class Client(Generic[T]):
    """What speaks to a bucket, made anew when its credentials were renewed: `where` is asked before each call."""

    def __init__(self, where: Callable[[], Bucket], make: Callable[[Bucket], T]) -> None:
        self._where = where
        self._make = make
        self._lock = threading.Lock()
        self._about = where()
        self._made = make(self._about)

    def __call__(self) -> T:
        about = self._where()
        with self._lock:
            if about != self._about:
                self._about, self._made = about, self._make(about)
            return self._made


def in_batches(keys: Iterable[str]) -> Iterator[list[str]]:
    left = iter(keys)
    while batch := list(islice(left, DELETE_AT_ONCE)):
        yield batch
