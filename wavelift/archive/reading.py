"""Reading packs where they lie, without a call for each record."""

from __future__ import annotations

import threading
from collections import OrderedDict

from wavelift.blocks.pack import PackHeader
from wavelift.blocks.packscan import Place, scan
from wavelift.stores.base import Store

# For the headers of records: as far as they lie close together, a call brings twice as many bytes as the one before.
_FIRST, _LONGEST = 64 << 10, 1 << 20
# For data that comes in pieces smaller than a call is worth.
WINDOW = 1 << 20
_WINDOWS_KEPT = 16
_ALONE = WINDOW // 4


def scan_object(store: Store, key: str) -> tuple[PackHeader, list[Place]]:
    """Header and records of a pack, from the headers of its records. Raises `PackError`, `StoreError`."""
    begin, held, step = 0, b"", _FIRST

    def read(offset: int, length: int) -> bytes:
        nonlocal begin, held, step
        end = begin + len(held)
        if not begin <= offset <= offset + length <= end:
            step = min(_LONGEST, step * 2) if held and offset <= end + step else _FIRST
            begin, held = offset, store.get(key, offset, max(length, step))
        return held[offset - begin : offset - begin + length]

    return scan(read)


class Windows:
    """Parts of objects that do not change, the last ones kept: readers of one part share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], _Window] = OrderedDict()

    def read(self, key: str, at: int, length: int) -> memoryview:
        """Fewer bytes where the object ends. Raises `StoreError`."""
        if length >= _ALONE:
            return memoryview(self._store.get(key, at, length))
        first, last = at // WINDOW, (at + length - 1) // WINDOW
        if first == last:
            begin = at - first * WINDOW
            return memoryview(self._window(key, first))[begin : begin + length]
        whole = b"".join(self._window(key, number) for number in range(first, last + 1))
        return memoryview(whole)[at - first * WINDOW :][:length]

    def _window(self, key: str, number: int) -> bytes:
        with self._lock:
            window = self._kept.setdefault((key, number), _Window())
            self._kept.move_to_end((key, number))
            if len(self._kept) > _WINDOWS_KEPT:
                self._kept.popitem(last=False)
        return window.filled(self._store, key, number)


class _Window:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._data: bytes | None = None

    def filled(self, store: Store, key: str, number: int) -> bytes:
        """By whoever comes first, while the others wait; by the next one where that failed."""
        with self._lock:
            if self._data is None:
                self._data = store.get(key, number * WINDOW, WINDOW)
            return self._data
