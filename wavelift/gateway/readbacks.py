"""What was last read back of each volume, kept as a block map: who sent it can tell by it which blocks are wrong."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wavelift.blocks.blockmap import DiskMap, MapStore, Tabled
from wavelift.blocks.files import sync_folder
from wavelift.service.errors import NotFound


class ReadBacks:
    """One folder a volume, named by its serial; the caller has found the volume, so its name is one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._busy: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    @contextmanager
    def turn(self, volume: str, check: Callable[[], None]) -> Iterator[None]:
        """One read-back of a volume at a time; `check` may raise to end the wait."""
        lock = self._busy[_serial(volume)]
        while not lock.acquire(timeout=0.2):
            check()
        try:
            yield
        finally:
            lock.release()

    def keep(self, volume: str, disk: str, generation: int, found: Tabled) -> DiskMap:
        """Read it all and keep its tables, in place of those of earlier generations."""
        store = MapStore(self._folder / _serial(volume))
        kept = store.freeze(disk, generation, found)
        store.prune([generation])
        return kept

    def drop(self, volume: str) -> None:
        """Before it is written to: what was read back is what it holds no longer."""
        folder = self._folder / _serial(volume)
        found = list(folder.glob("*.map"))
        for path in found:
            path.unlink(missing_ok=True)
        if found:
            sync_folder(folder)

    def load(self, volume: str, generation: int) -> DiskMap:
        """Raises `NotFound`, `MapError`."""
        found = MapStore(self._folder / _serial(volume)).load(generation)
        if found is None:
            raise NotFound(
                f"Volume {volume} was not read back as generation {generation}, or was written to since.",
                "Run a verify job first.",
            )
        return found


def _serial(volume: str) -> str:
    return volume.removeprefix("d-")
