"""An archive as a sink: each pack an object, named by what it is."""

from __future__ import annotations

import time
from collections.abc import Callable

from blake3 import blake3

from wavelift.archive.layout import Row
from wavelift.blocks.digest import BLOCK, blocks_of
from wavelift.blocks.packscan import scan
from wavelift.blocks.sink import Receipt
from wavelift.stores.base import Store

Seal = Callable[[memoryview], memoryview]
Note = Callable[[Row], None]


class ArchiveSink:
    """For one worker. `seal` closes each pack, `note` is told of what the store has taken."""

    takes_copies = False

    def __init__(self, store: Store, generation: int, seal: Seal | None, note: Note) -> None:
        self._store = store
        self._generation = generation
        self._seal = seal
        self._note = note

    def put(self, sequence: int, pack: memoryview) -> Receipt:
        """Durable on return; the same object twice is one. Raises `PackError`, `StoreError`."""
        _, places = scan(lambda offset, length: bytes(pack[offset : offset + length]))
        records = [place.record for place in places]
        start = min((record.offset for record in records), default=0)
        blocks = blocks_of(max((record.offset + record.length for record in records), default=0) - start)
        # Not the caller's own: a store that nobody waits for any longer may be reading it still.
        whole = bytes(pack) if self._seal is None else self._seal(pack)
        row = Row(sequence, start, start + blocks * BLOCK, blake3(whole).digest(), len(whole))
        began = time.monotonic()
        self._store.put(row.key(self._generation), whole)
        took = time.monotonic() - began
        self._note(row)
        lengths = [record.length for record in records]
        return Receipt(sum(map(blocks_of, lengths)), sum(lengths), len(whole), took)

    def close(self) -> None:
        """The store stays open for others."""
