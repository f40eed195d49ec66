"""Which packs become a generation's, and whether they are all there."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from wavelift.archive.archive import Archive
from wavelift.archive.errors import BlocksLost, PacksLost
from wavelift.archive.held import Held
from wavelift.archive.layout import PackList, Row, packs_prefix, row_of
from wavelift.archive.reading import scan_object
from wavelift.blocks.attempts import attempt_of
from wavelift.blocks.blockmap import DiskMap, segments_of
from wavelift.blocks.errors import PackError
from wavelift.blocks.pack import Record
from wavelift.stores.base import Corrupted, NotThere, Unavailable
from wavelift.stores.patience import Patience

_SCANNED_AT_ONCE = 8


class _NotListed(Unavailable):
    """A list does not name yet what was put."""

    default_code = "not_listed"


def contribution(
    archive: Archive,
    number: int,
    found: DiskMap,
    first_sequence: int,
    put: Collection[Row],
    patience: Patience,
) -> PackList:
    """The packs of the attempt that made the map, and those of earlier ones that hold blocks of it: where a source
    went on, an attempt may build on what the one before had sent. `put` are those that this process has put.

    Raises `PacksLost`, `MapError`, `StoreError`.
    """
    attempt, swept = attempt_of(first_sequence), archive.swept(number)
    if swept >= attempt:
        raise PacksLost(archive.name, [packs_prefix(number)])
    rows = _listed(archive, number, [row for row in put if attempt_of(row.sequence) > swept], patience)
    earlier = [row for row in rows if attempt_of(row.sequence) < attempt]
    return PackList.of(number, [*_useful(archive, number, found, earlier), *(set(rows) - set(earlier))])


def require_covered(found: DiskMap, packs: PackList, base: DiskMap | None) -> None:
    """Raises `BlocksLost` for blocks that no pack speaks of: without a base those that are not zeroes, else those that
    changed in segments of which no pack speaks at all."""
    held = Held(found)
    for row in packs:
        held.cover(row.start, min(row.end, found.size))
    lost: list[tuple[int, int]] = []
    for segment in range(segments_of(found.size)):
        if base is None:
            lost += held.lacking(segment)
        elif found.segment(segment) != base.segment(segment) and not held.any(segment):
            lost += held.lacking(segment, base.table(segment) if segment < segments_of(base.size) else None)
    if lost:
        raise BlocksLost(found.disk, lost, [])


def _listed(archive: Archive, number: int, put: Collection[Row], patience: Patience) -> list[Row]:
    prefix = packs_prefix(number)

    def ask(_: int) -> list[Row]:
        found = (row_of(entry.key.removeprefix(prefix), entry.size) for entry in archive.bare.list(prefix))
        rows = [row for row in found if row is not None]
        missing = set(put).difference(rows)
        if missing:
            raise _NotListed(f"{archive.name} does not list {len(missing)} packs that it took.", "Try again later.")
        return rows

    try:
        return patience(ask)
    except _NotListed:
        there = {entry.key for entry in archive.bare.list(prefix)}
        lost = sorted(row.key(number) for row in put if row.key(number) not in there)
        raise PacksLost(archive.name, lost) from None


def _useful(archive: Archive, number: int, found: DiskMap, rows: Collection[Row]) -> list[Row]:
    """Those that hold blocks of the map, by the headers of their records. One that is damaged holds none."""
    if not rows:
        return []
    held = Held(found)
    with ThreadPoolExecutor(_SCANNED_AT_ONCE) as pool:
        scans = pool.map(lambda row: _records(archive, row.key(number)), rows)
        # Every record is noted: `any` over a list, not over what ends with the first.
        return [row for row, records in zip(rows, scans, strict=True) if any([held.note(each) for each in records])]


def _records(archive: Archive, key: str) -> list[Record]:
    try:
        _, places = scan_object(archive.store, key)
    except (PackError, Corrupted, NotThere):
        return []
    return [place.record for place in places]
