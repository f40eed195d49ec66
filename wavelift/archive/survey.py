"""What can be seen of archives in a store without a key: names, sizes and times; of plain ones their records too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from wavelift.archive.errors import Damaged
from wavelift.archive.layout import ABOUT, MAX_RECORD, About, Generation, decode_about, decode_record, record_key
from wavelift.stores.base import Store
from wavelift.stores.prefixed import PrefixedStore

_KEY = re.compile(
    r"(?:(?P<prefix>.+?)/)??(?:(?P<about>archive\.json)|packs/(?P<packs>\d+)/[^/]+\.pack|generations/(?P<record>\d+)"
    r"|generations/\d+\.packs|maps/.+)"
)


@dataclass
class SeenGeneration:
    """`packs` lie there, of `pack_bytes` together, whatever attempt put them. `put_at` is when its record was put, in
    seconds since the epoch, None without one: then it is not finished. `record` is None where it is sealed."""

    number: int
    packs: int = 0
    pack_bytes: int = 0
    put_at: float | None = None
    record: Generation | None = None


@dataclass
class SeenArchive:
    """At `prefix`, which is empty for one at the top; `other_bytes` of all that is no pack."""

    prefix: str
    about: About | None = None
    other_bytes: int = 0
    generations: dict[int, SeenGeneration] = field(default_factory=dict)

    @property
    def sealed(self) -> bool:
        return self.about is not None and self.about.key is not None

    @property
    def finished(self) -> Iterator[SeenGeneration]:
        return (each for _, each in sorted(self.generations.items()) if each.put_at is not None)

    def within(self, store: Store) -> Store:
        """The part of the store that it lies in."""
        return PrefixedStore(store, self.prefix) if self.prefix else store


def survey(store: Store) -> list[SeenArchive]:
    """In the order of their prefixes. Raises `Damaged`, `StoreError`."""
    seen: dict[str, SeenArchive] = {}
    there = set()
    for entry in store.list(""):
        found = _KEY.fullmatch(entry.key)
        if found is None:
            continue
        archive = seen.setdefault(found["prefix"] or "", SeenArchive(found["prefix"] or ""))
        if found["packs"] is not None:
            generation = _of(archive, int(found["packs"]))
            generation.packs += 1
            generation.pack_bytes += entry.size
            continue
        archive.other_bytes += entry.size
        if found["about"] is not None:
            there.add(archive.prefix)
        if found["record"] is not None:
            _of(archive, int(found["record"])).put_at = entry.put_at
    archives = [archive for prefix, archive in sorted(seen.items()) if prefix in there]
    for archive in archives:
        _read(archive, archive.within(store))
    return archives


def _of(archive: SeenArchive, number: int) -> SeenGeneration:
    return archive.generations.setdefault(number, SeenGeneration(number))


def _read(archive: SeenArchive, store: Store) -> None:
    key = ABOUT
    try:
        archive.about = decode_about(store.get(key, 0, MAX_RECORD))
        for generation in archive.finished if not archive.sealed else ():
            key = record_key(generation.number)
            generation.record = decode_record(store.get(key, 0, MAX_RECORD))
    except ValueError as error:
        raise Damaged(store.name, key, f"damaged: {error}") from None
