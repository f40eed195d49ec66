"""Sealed packs: AES-256-GCM for packs that travel on disks or lie in buckets. See docs/format.md.

A migration's key is random and wrapped by a key-encryption key; each pack carries its wrapped key, so that
the key-encryption key alone opens it. The key of one pack is derived from its nonce.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from wavelift.blocks.errors import CorruptPack, PackKeyMissing
from wavelift.blocks.pack_layout import (
    BASIC,
    FRAME,
    FRAME_LENGTH,
    LAST_FRAME,
    MAGIC,
    PREFIX,
    SEAL,
    SEALED,
    SEALED_HEAD,
    TAG,
    ReadInto,
    frames_of,
    sealed_size,
)

KEY = 32
_ID_DOMAIN = b"wavelift key id 1\0"
_PACK_DOMAIN = b"wavelift pack key 1\0"
_NONCE_DOMAIN = b"wavelift pack nonce 1\0"


def _key_id(secret: bytes) -> bytes:
    return blake3(_ID_DOMAIN + secret).digest(16)


def _derive(secret: bytes, salt: bytes | None, domain: bytes) -> bytes:
    return HKDF(SHA256(), KEY, salt, domain).derive(secret)


class KeyEncryptionKey:
    """Wraps the keys of migrations. 32 random bytes, kept where secrets are kept; never in a pack."""

    def __init__(self, secret: bytes) -> None:
        """Raises ValueError for anything but 32 bytes."""
        if len(secret) != KEY:
            raise ValueError(f"A key-encryption key has {KEY} bytes, not {len(secret)}.")
        self._secret = secret
        self.id = _key_id(secret)

    def wrap(self, secret: bytes) -> bytes:
        return aes_key_wrap(self._secret, secret)

    def unwrap(self, wrapped: bytes) -> bytes:
        """Raises `CorruptPack` when it was damaged or wrapped by another key."""
        try:
            return aes_key_unwrap(self._secret, wrapped)
        except InvalidUnwrap:
            raise CorruptPack("its wrapped key is damaged") from None


class MigrationKey:
    """Seals the packs of one migration. `wrapped` may be stored anywhere; it needs `wrapping` to be used."""

    def __init__(self, wrapping: KeyEncryptionKey, wrapped: bytes) -> None:
        """A stored key. Raises `CorruptPack` when it was damaged or wrapped by another key."""
        self._secret = wrapping.unwrap(wrapped)
        self._nonce_key = _derive(self._secret, None, _NONCE_DOMAIN)
        self.id = _key_id(self._secret)
        self.wrapping = wrapping.id
        self.wrapped = wrapped

    @classmethod
    def create(cls, wrapping: KeyEncryptionKey) -> MigrationKey:
        return cls(wrapping, wrapping.wrap(os.urandom(KEY)))

    def seal(self, buffer: memoryview, size: int) -> memoryview:
        """Seal, in place, the plain pack of `size` bytes that lies `SEALED_HEAD` bytes into the buffer."""
        plain = buffer[SEALED_HEAD : SEALED_HEAD + size]
        # Of random bytes and of the content: even a machine whose random bytes come again (a snapshot of it
        # was resumed) never seals two contents with the same nonce.
        nonce = blake3(os.urandom(32), key=self._nonce_key).update(plain).digest()
        body = SEAL.pack(self.id, self.wrapping, self.wrapped, nonce)
        head = PREFIX.pack(MAGIC, BASIC, SEALED, len(body), zlib.crc32(body)) + body
        cipher = AESGCM(_derive(self._secret, nonce, _PACK_DOMAIN))
        scratch = memoryview(bytearray(FRAME + TAG))
        count = frames_of(size)
        # From the last to the first: each frame ends up behind where it was, never on one still to come.
        for number in reversed(range(count)):
            piece = plain[number * FRAME : (number + 1) * FRAME]
            last = number == count - 1
            done = cipher.encrypt_into(_frame_nonce(number, last), piece, head, scratch[: len(piece) + TAG])
            start = SEALED_HEAD + number * (FRAME_LENGTH.size + FRAME + TAG)
            length = len(piece) | (LAST_FRAME if last else 0)
            buffer[start + FRAME_LENGTH.size : start + FRAME_LENGTH.size + done] = scratch[:done]
            FRAME_LENGTH.pack_into(buffer, start, length)
        buffer[:SEALED_HEAD] = head
        return buffer[: sealed_size(size)]

    def open(self, head: bytes, readinto: ReadInto, frame: int = 0) -> ReadInto:
        """The plain pack within a sealed one whose head was read already, as a stream, from a frame on."""
        nonce = SEAL.unpack(head[PREFIX.size :])[3]
        return _Frames(AESGCM(_derive(self._secret, nonce, _PACK_DOMAIN)), head, readinto, frame).readinto


class KeyRing:
    """Finds the key of a sealed pack: among the migrations' keys, else by unwrapping the one it carries."""

    def __init__(self, keys: Iterable[KeyEncryptionKey | MigrationKey]) -> None:
        self._wrapping: dict[bytes, KeyEncryptionKey] = {}
        self._keys: dict[bytes, MigrationKey] = {}
        self._unwrapped: dict[tuple[bytes, bytes], MigrationKey] = {}
        for key in keys:
            if isinstance(key, MigrationKey):
                self._keys[key.id] = key
            else:
                self._wrapping[key.id] = key

    def open(self, head: bytes, readinto: ReadInto, frame: int = 0) -> ReadInto:
        """What is sealed under a head that was read already, from a frame on, which `readinto` begins with. Raises
        `PackKeyMissing`, and `CorruptPack` for a head whose parts contradict each other."""
        name, wrapping, wrapped, _ = SEAL.unpack(head[PREFIX.size :])
        key = self._keys.get(name) or self._unwrapped.get((name, wrapped))
        if key is None:
            if wrapping not in self._wrapping:
                raise PackKeyMissing(name.hex(), wrapping.hex())
            key = MigrationKey(self._wrapping[wrapping], wrapped)
            if key.id != name:
                raise CorruptPack("its wrapped key is not the one it names")
            self._unwrapped[name, wrapped] = key
        return key.open(head, readinto, frame)


class _Frames:
    """The content of a sealed pack's frames; nothing of a frame is handed on before its tag was checked."""

    def __init__(self, cipher: AESGCM, head: bytes, readinto: ReadInto, number: int) -> None:
        self._cipher = cipher
        self._head = head
        self._readinto = readinto
        self._sealed = memoryview(bytearray(FRAME + TAG))
        self._plain = memoryview(bytearray(FRAME))
        self._at = self._end = 0
        self._number = number
        self._last = False

    def readinto(self, view: memoryview) -> int:
        filled = 0
        while filled < len(view):
            if self._at == self._end:
                if self._last:
                    break
                self._next()
            count = min(len(view) - filled, self._end - self._at)
            view[filled : filled + count] = self._plain[self._at : self._at + count]
            self._at, filled = self._at + count, filled + count
        return filled

    def _next(self) -> None:
        front = self._sealed[: FRAME_LENGTH.size]
        if self._readinto(front) != len(front):
            raise CorruptPack("it ends before its last frame")
        (length,) = FRAME_LENGTH.unpack(front)
        self._last, length = bool(length & LAST_FRAME), length & ~LAST_FRAME
        if not 0 < length <= FRAME and not (length == self._number == 0 and self._last):
            raise CorruptPack(f"a frame claims {length} bytes")
        sealed = self._sealed[: length + TAG]
        if self._readinto(sealed) != len(sealed):
            raise CorruptPack("it ends within a frame")
        try:
            nonce = _frame_nonce(self._number, self._last)
            self._cipher.decrypt_into(nonce, sealed, self._head, self._plain[:length])
        except InvalidTag:
            raise CorruptPack(f"the seal of frame {self._number} is broken") from None
        if self._last and self._readinto(memoryview(bytearray(1))) != 0:
            raise CorruptPack("something follows its last frame")
        self._number, self._at, self._end = self._number + 1, 0, length


def _frame_nonce(number: int, last: bool) -> bytes:
    return struct.pack("<Q3xB", number, last)
