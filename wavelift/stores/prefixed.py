"""A part of a store as a store of its own: what lies under a prefix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wavelift.stores.base import Entry, Store


class PrefixedStore:
    """Keys are those of `store` without the prefix and the "/" after it."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._before = f"{prefix}/"

    @property
    def name(self) -> str:
        return f"{self._store.name}/{self._before}".rstrip("/")

    def put(self, key: str, data: bytes | bytearray | memoryview, *, new: bool = False) -> None:
        self._store.put(self._before + key, data, new=new)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._store.get(self._before + key, start, length)

    def size(self, key: str) -> int:
        return self._store.size(self._before + key)

    def list(self, prefix: str) -> Iterator[Entry]:
        for entry in self._store.list(self._before + prefix):
            yield Entry(entry.key.removeprefix(self._before), entry.size, entry.put_at)

    def delete(self, keys: Iterable[str]) -> None:
        self._store.delete(self._before + key for key in keys)
