"""A store whose objects are sealed: each within the envelope of a sealed pack (docs/format.md), whatever it holds.

Keys of objects, their sizes and times stay as the store has them. That an object lies where it should is for its
reader to see from what it holds: a seal does not say where it belongs.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator

from wavelift.blocks.crypto import KeyEncryptionKey, KeyRing, MigrationKey
from wavelift.blocks.errors import CorruptPack, PackKeyMissing
from wavelift.blocks.pack import from_memory
from wavelift.blocks.pack_layout import (
    BASIC,
    FRAME,
    FRAME_LENGTH,
    MAGIC,
    PREFIX,
    SEAL,
    SEALED,
    SEALED_HEAD,
    TAG,
    sealed_size,
)
from wavelift.stores.base import Corrupted, Denied, Entry, Store

_FRAME_WHOLE = FRAME_LENGTH.size + FRAME + TAG
# Up to here an object is read from its start: asking for its head apart takes longer.
_NEAR = 4
_HEADS_KEPT = 4096


class SealedStore:
    """`wrapping` wraps the key that this one seals with, which is new, and opens what others sealed."""

    def __init__(self, store: Store, wrapping: KeyEncryptionKey) -> None:
        self._store = store
        self._key = MigrationKey.create(wrapping)
        self.keys = KeyRing([self._key, wrapping])
        self._lock = threading.Lock()
        self._heads: OrderedDict[str, bytes] = OrderedDict()

    @property
    def name(self) -> str:
        return self._store.name

    def seal(self, data: bytes | bytearray | memoryview) -> memoryview:
        size = len(data)
        buffer = memoryview(bytearray(sealed_size(size)))
        buffer[SEALED_HEAD : SEALED_HEAD + size] = data
        return self._key.seal(buffer, size)

    def put(self, key: str, data: bytes | bytearray | memoryview, *, new: bool = False) -> None:
        self._store.put(key, self.seal(data), new=new)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Raises `Corrupted` for what is damaged, `Denied` for what another key seals."""
        first = start // FRAME
        skip = start - first * FRAME
        frames = None if length is None else max(1, -(-(skip + length) // FRAME))
        if first < _NEAR:
            return self._open(key, *self._from_start(key, first, frames), first, skip, length)
        known = self._known(key)
        head = known or self._fetch_head(key)
        body = self._fetch(key, first, frames)
        try:
            return self._open(key, head, body, first, skip, length)
        except Corrupted:
            if known is None:
                raise
            # The object may have been replaced since by another with the same content, and a head of its own.
            return self._open(key, self._fetch_head(key), self._fetch(key, first, frames), first, skip, length)

    def size(self, key: str) -> int:
        return self._plain_size(key, self._store.size(key))

    def list(self, prefix: str) -> Iterator[Entry]:
        for entry in self._store.list(prefix):
            yield Entry(entry.key, self._plain_size(entry.key, entry.size), entry.put_at)

    def delete(self, keys: Iterable[str]) -> None:
        self._store.delete(keys)

    def _from_start(self, key: str, first: int, frames: int | None) -> tuple[bytes, bytes]:
        length = None if frames is None else SEALED_HEAD + (first + frames) * _FRAME_WHOLE
        data = self._store.get(key, 0, length)
        return self._note(key, data[:SEALED_HEAD]), data[SEALED_HEAD + first * _FRAME_WHOLE :]

    def _fetch_head(self, key: str) -> bytes:
        return self._note(key, self._store.get(key, 0, SEALED_HEAD))

    def _note(self, key: str, head: bytes) -> bytes:
        with self._lock:
            self._heads[key] = self._checked(key, head)
            if len(self._heads) > _HEADS_KEPT:
                self._heads.popitem(last=False)
        return head

    def _fetch(self, key: str, first: int, frames: int | None) -> bytes:
        length = None if frames is None else frames * _FRAME_WHOLE
        return self._store.get(key, SEALED_HEAD + first * _FRAME_WHOLE, length)

    def _known(self, key: str) -> bytes | None:
        with self._lock:
            return self._heads.get(key)

    def _checked(self, key: str, head: bytes) -> bytes:
        if len(head) < SEALED_HEAD or head[: len(MAGIC)] != MAGIC:
            raise self._damaged(key, "it does not begin as a sealed object")
        _, version, flags, length, crc = PREFIX.unpack_from(head)
        body = head[PREFIX.size :]
        if (version, flags, length, crc) != (BASIC, SEALED, SEAL.size, zlib.crc32(body)):
            raise self._damaged(key, "it does not begin as a sealed object")
        return head

    def _open(self, key: str, head: bytes, body: bytes, first: int, skip: int, length: int | None) -> bytes:
        if first and not body:
            # Beyond the end; that it ends there, its last frame would say.
            return b""
        room = len(body) if length is None else skip + length
        content = bytearray(min(room, len(body)))
        try:
            readinto = self.keys.open(head, from_memory(memoryview(body)), first)
            got = readinto(memoryview(content))
        except PackKeyMissing as error:
            raise Denied(f"{key} in {self.name} is sealed with a key that is not here.", error.remedy) from None
        except CorruptPack as error:
            raise self._damaged(key, error.message) from None
        return bytes(content[skip:got])

    def _plain_size(self, key: str, size: int) -> int:
        frames = max(1, -(-(size - SEALED_HEAD) // _FRAME_WHOLE))
        plain = size - SEALED_HEAD - frames * (FRAME_LENGTH.size + TAG)
        if plain < 0 or sealed_size(plain) != size:
            raise self._damaged(key, f"nothing that is sealed has {size} bytes")
        return plain

    def _damaged(self, key: str, why: str) -> Corrupted:
        return Corrupted(f"{key} in {self.name} is damaged: {why}.", "Bring it back from another copy.")
