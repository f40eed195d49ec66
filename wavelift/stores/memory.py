"""A store in this process's memory, gone with it: a true peer, for tests and for trying things out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

from wavelift.stores.base import AlreadyThere, Entry, NotThere, checked


class MemoryStore:
    name = "memory:"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, float]] = {}

    def put(self, key: str, data: bytes | bytearray | memoryview, *, new: bool = False) -> None:
        made = bytes(data), time.time()
        with self._lock:
            if new and key in self._objects:
                raise AlreadyThere(self.name, key)
            self._objects[checked(key)] = made

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        data = self._find(key)
        return data[start:] if length is None else data[start : start + length]

    def size(self, key: str) -> int:
        return len(self._find(key))

    def list(self, prefix: str) -> Iterator[Entry]:
        with self._lock:
            found = sorted((key, len(data), at) for key, (data, at) in self._objects.items() if key.startswith(prefix))
        return (Entry(*each) for each in found)

    def delete(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._objects.pop(checked(key), None)

    def _find(self, key: str) -> bytes:
        with self._lock:
            found = self._objects.get(checked(key))
        if found is None:
            raise NotThere(self.name, key)
        return found[0]
