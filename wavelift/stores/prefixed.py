"""A part of a store as a store of its own: what lies under a prefix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wavelift.stores.base import AlreadyThere, Entry, NotThere, Store


class PrefixedStore:
    """Keys are those of `store` without the prefix and the "/" after it."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._before = f"{prefix}/"

    @property
    def name(self) -> str:
        return f"{self._store.name}/{self._before}".rstrip("/")

    def put(self, key: str, data: bytes | bytearray | memoryview, *, new: bool = False) -> None:
        try:
            self._store.put(self._before + key, data, new=new)
        except AlreadyThere as error:
            raise AlreadyThere(error.store, key) from None

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        try:
            return self._store.get(self._before + key, start, length)
        except NotThere as error:
            raise NotThere(error.store, key) from None

    def size(self, key: str) -> int:
        try:
            return self._store.size(self._before + key)
        except NotThere as error:
            raise NotThere(error.store, key) from None

    def list(self, prefix: str) -> Iterator[Entry]:
        for entry in self._store.list(self._before + prefix):
            yield Entry(entry.key.removeprefix(self._before), entry.size, entry.put_at)

    def delete(self, keys: Iterable[str]) -> None:
        self._store.delete(self._before + key for key in keys)
