"""Making a generation: what makes it lies in the store before its record does."""

from __future__ import annotations

import threading
import time

from wavelift.archive.archive import Archive
from wavelift.archive.contribution import contribution, require_covered
from wavelift.archive.errors import Damaged, NoGeneration, OtherContent
from wavelift.archive.layout import Generation, encode_record, list_key, map_key, record_key, table_key
from wavelift.archive.lease import held
from wavelift.blocks.blockmap import DiskMap, encode_index, segments_of
from wavelift.blocks.digest import ZERO_DIGEST
from wavelift.stores.base import AlreadyThere
from wavelift.stores.patience import Patience

# For how long a list may lack what was put a moment ago, and a commit waits for a sweep to end.
_LISTED_SECONDS = 30.0
_SWEPT_SECONDS = 600.0


def commit(
    archive: Archive,
    migration: str,
    number: int,
    base: int | None,
    base_root: str | None,
    found: DiskMap,
    consistency: str,
    first_sequence: int,
    stop: threading.Event | None = None,
) -> Generation:
    """Make what the sinks got a generation of this map, as an increment on `base`, here or elsewhere, whose root is
    `base_root`. Again for the same content it changes nothing.

    `first_sequence` is that of the attempt that made the map. Nothing is waited for once `stop` is set. Raises
    `OtherContent`, `PacksLost`, `BlocksLost`, `Busy` while a sweep is under way, `MapError`, `StoreError`.
    """
    with held(archive.store, "commit", waits_for=("sweep",), wait_seconds=_SWEPT_SECONDS, stop=stop):
        root = found.root.hex()
        there = _there(archive, number, root)
        if there is not None:
            return there
        known = _known(archive, base, base_root)
        patience = Patience(_LISTED_SECONDS, stop=stop)
        packs = contribution(archive, number, found, first_sequence, archive.put_here(number), patience)
        if base is None or known is not None:
            try:
                require_covered(found, packs, known)
            except Damaged:
                # What changed cannot be told: every table is put again, and reading back proves the packs.
                known = None
        _write_map(archive, number, found, known)
        archive.store.put(list_key(number), packs.raw)
        made = Generation(
            migration,
            found.disk,
            number,
            base,
            base_root,
            found.size,
            root,
            consistency,
            len(packs),
            sum(row.size for row in packs),
            packs.digest,
            int(time.time()),
        )
        try:
            archive.store.put(record_key(number), encode_record(made), new=True)
        except AlreadyThere:
            return _there(archive, number, root) or made
        return made


def _there(archive: Archive, number: int, root: str) -> Generation | None:
    """The generation if it was made of the same content. Raises `OtherContent`."""
    try:
        there = archive.load(number)
    except NoGeneration:
        return None
    if there.root != root:
        raise OtherContent(archive.name, number, there.root, root)
    return there


def _known(archive: Archive, base: int | None, base_root: str | None) -> DiskMap | None:
    """The map of what is built on, where that is here. What is damaged is as good as elsewhere: a copy does not end for
    it, and whoever reads the generation back is told."""
    try:
        before = archive.base_of(base, base_root)
        return None if before is None else archive.map(before)
    except Damaged:
        return None


def _write_map(archive: Archive, number: int, found: DiskMap, before: DiskMap | None) -> None:
    known = set() if before is None else {before.segment(part) for part in range(segments_of(before.size))}
    for part in range(segments_of(found.size)):
        name = found.segment(part)
        if name != ZERO_DIGEST and name not in known:
            known.add(name)
            # Put even where it is there: what lies there may be damaged.
            archive.store.put(table_key(name.hex()), found.table(part))
    archive.store.put(map_key(number), encode_index(found.disk, found.size, found.segments))
