"""An archive: the generations of one disk at rest in a store, each as what it added. See docs/format.md.

A generation is there when its record is; packs, map and the list of packs are durable before it. What was put by an
attempt that was given up has no record, or is not in its list, and is never read.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from functools import lru_cache

from wavelift.archive.errors import ArchiveError, Damaged, KeyMissing, NoArchive, NoGeneration, NotSealed, OtherContent
from wavelift.archive.keys import KeyOf
from wavelift.archive.layout import (
    ABOUT,
    GENERATIONS,
    MAX_RECORD,
    ROW,
    VERSION,
    About,
    Generation,
    Origin,
    PackList,
    Row,
    decode_about,
    decode_record,
    encode_about,
    list_key,
    map_key,
    packs_prefix,
    record_key,
    swept_key,
    table_key,
)
from wavelift.archive.sealed import SealedStore
from wavelift.archive.sink import ArchiveSink
from wavelift.blocks.blockmap import MAX_INDEX, DiskMap, decode_index, segment_digest
from wavelift.blocks.crypto import KeyEncryptionKey, KeyRing
from wavelift.blocks.digest import TABLE
from wavelift.blocks.errors import MapError
from wavelift.stores.base import Corrupted, NotThere, Store

_TABLES_KEPT = 4


class Archive:
    def __init__(self, store: Store, about: About, key: KeyEncryptionKey | None) -> None:
        """Use `create` or `open`."""
        self.bare = store
        self.about = about
        self._seal = None if key is None else SealedStore(store, key)
        self.store: Store = self._seal or store
        self._lock = threading.Lock()
        self._put: dict[int, set[Row]] = {}

    @classmethod
    def create(
        cls, store: Store, *, key: KeyOf | None, name: str | None = None, origin: Origin | None = None
    ) -> Archive:
        """A new one where there is none; without a key nothing in it is sealed. `name` becomes its id, which its key
        depends on: whoever knows it beforehand can tell the key as well. Raises `AlreadyThere`, `StoreError`."""
        name = name or secrets.token_hex(16)
        made = None if key is None else key(name)
        about = About(VERSION, name, None if made is None else made.id.hex(), origin)
        store.put(ABOUT, encode_about(about), new=True)
        return cls(store, about, made)

    @classmethod
    def open(cls, store: Store, key: KeyOf | None) -> Archive:
        """Raises `NoArchive`, `KeyMissing`, `NotSealed`, `ArchiveError`, `StoreError`."""
        try:
            about = decode_about(store.get(ABOUT, 0, MAX_RECORD))
        except NotThere:
            raise NoArchive(store.name) from None
        except ValueError as error:
            raise ArchiveError(
                f"{ABOUT} of {store.name} cannot be used: {error}.",
                "Use the version that wrote it, or bring it back from another copy; where it belongs to a migration "
                "under way you may delete it, and it is made anew.",
            ) from None
        if about.key is None:
            if key is not None:
                raise NotSealed(store.name)
            return cls(store, about, None)
        made = None if key is None else key(about.id)
        if made is None or made.id.hex() != about.key:
            raise KeyMissing(store.name, about.key)
        return cls(store, about, made)

    @property
    def id(self) -> str:
        return self.about.id

    @property
    def name(self) -> str:
        return self.bare.name

    @property
    def sealed(self) -> bool:
        return self._seal is not None

    def generations(self) -> list[int]:
        """Those that are whole, in order."""
        names = (entry.key.removeprefix(GENERATIONS) for entry in self.bare.list(GENERATIONS))
        return sorted(int(name) for name in names if name.isdecimal())

    def load(self, number: int) -> Generation:
        """Raises `NoGeneration`, `Damaged`, `StoreError`."""
        key = record_key(number)
        try:
            found = decode_record(self._get(key, MAX_RECORD))
        except NotThere:
            raise NoGeneration(self.name, number, self.generations()) from None
        except ValueError as error:
            raise Damaged(self.name, key, f"damaged: {error}") from None
        if found.generation != number:
            raise Damaged(self.name, key, f"the record of generation {found.generation}")
        return found

    def map(self, generation: Generation) -> DiskMap:
        """Its tables are read when they are asked for. Raises `Damaged`, `StoreError`."""
        key = map_key(generation.generation)
        try:
            found = decode_index(self._get(key, MAX_INDEX + 1), _Tables(self))
        except NotThere:
            raise Damaged(self.name, key, "missing") from None
        except MapError as error:
            raise Damaged(self.name, key, f"damaged: {error.message}") from None
        if (found.root.hex(), found.size, found.disk) != (generation.root, generation.size, generation.disk):
            raise Damaged(self.name, key, f"not the map of generation {generation.generation}")
        return found

    def packs(self, generation: Generation) -> PackList:
        """Those that this generation added. Raises `Damaged`, `StoreError`."""
        key = list_key(generation.generation)
        try:
            raw = self._get(key, generation.packs * ROW.size + 1)
        except NotThere:
            raise Damaged(self.name, key, "missing") from None
        found = PackList(generation.generation, raw)
        if len(raw) != generation.packs * ROW.size or found.digest != generation.packs_digest:
            raise Damaged(self.name, key)
        return found

    def chain(self, number: int) -> Iterator[Generation]:
        """A generation and what it builds on, newest first, as far as it lies here: the base of the last one lies
        elsewhere, or there is none. Raises `NoGeneration`, `OtherContent`, `Damaged`, `StoreError`."""
        generation = self.load(number)
        while True:
            yield generation
            before = self.base_of(generation.base, generation.base_root)
            if before is None:
                return
            if before.generation >= generation.generation:
                raise Damaged(self.name, record_key(generation.generation), "built on a later one")
            generation = before

    def base_of(self, base: int | None, root: str | None) -> Generation | None:
        """What a generation builds on: None when there is none, or elsewhere. Raises `OtherContent` when another one is
        there, `Damaged`, `StoreError`."""
        if base is None:
            return None
        try:
            before = self.load(base)
        except NoGeneration:
            return None
        if before.root != root:
            raise OtherContent(self.name, base, before.root, str(root))
        return before

    def swept(self, number: int) -> int:
        """The last attempt at a generation of which packs were deleted, -1 for none. Raises `Damaged`, `StoreError`."""
        key = swept_key(number)
        try:
            return int(self._get(key, MAX_RECORD))
        except NotThere:
            return -1
        except ValueError:
            raise Damaged(self.name, key) from None

    def has(self, key: str) -> bool:
        """Raises `StoreError`."""
        try:
            self.bare.size(key)
        except NotThere:
            return False
        return True

    @property
    def keys(self) -> KeyRing | None:
        """What opens packs that were fetched from `bare`."""
        return None if self._seal is None else self._seal.keys

    def sink(self, generation: int) -> ArchiveSink:
        """For one worker."""

        def note(row: Row) -> None:
            with self._lock:
                self._put.setdefault(generation, set()).add(row)

        return ArchiveSink(self.bare, generation, None if self._seal is None else self._seal.seal, note)

    def put_here(self, generation: int) -> set[Row]:
        """What the sinks of this process put for it."""
        return self._put.get(generation, set())

    def tidy(self, number: int) -> None:
        """Delete what attempts left at a generation that was made, and never became a part of it."""
        packs = self.packs(self.load(number))
        ours = {packs.key(row) for row in packs}
        prefix = packs_prefix(number)
        self.bare.delete([entry.key for entry in self.bare.list(prefix) if entry.key not in ours])

    def discard(self, number: int) -> None:
        """Delete what the sinks got for a generation that never came to be."""
        if not self.has(record_key(number)):
            self.bare.delete([entry.key for entry in self.bare.list(packs_prefix(number))])
            self.bare.delete([list_key(number), map_key(number)])

    def table(self, name: str) -> bytes:
        """A table of maps, by its digest in hex. Raises `Damaged`, `StoreError`."""
        key = table_key(name)
        try:
            table = self._get(key, TABLE + 1)
        except NotThere:
            raise Damaged(self.name, key, "missing") from None
        if segment_digest(table).hex() != name:
            raise Damaged(self.name, key)
        return table

    def _get(self, key: str, length: int) -> bytes:
        try:
            return self.store.get(key, 0, length)
        except Corrupted as error:
            raise Damaged(self.name, key, f"damaged: {error.message}") from None


class _Tables:
    """The tables of an archive's maps, the last few of them kept."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._whole = lru_cache(_TABLES_KEPT)(archive.table)

    def read(self, name: str, at: int, length: int) -> bytes:
        return self._whole(name)[at : at + length]

    def place(self, name: str) -> str:
        return f"{self._archive.name}/{table_key(name)}"
