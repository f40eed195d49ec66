"""Sealed packs: round trips, damage, keys, and nonces that never serve two contents."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavelift.blocks.crypto import KeyEncryptionKey, KeyRing, MigrationKey
from wavelift.blocks.digest import BLOCK, digests
from wavelift.blocks.errors import CorruptPack, PackError, PackKeyMissing, PackTooLarge, UnknownPack
from wavelift.blocks.pack import PackWriter
from wavelift.blocks.pack_layout import FRAME, PREFIX, SEALED_HEAD, sealed_size

from .conftest import GOLDEN_KEY, GOLDEN_WRAPPED, HEADER, TEXT, pattern, read, write

WRAPPING = KeyEncryptionKey(GOLDEN_KEY)
KEY = MigrationKey(WRAPPING, GOLDEN_WRAPPED)
RING = KeyRing([WRAPPING])
PARTS: list[tuple[int, bytes | int]] = [(0, pattern(BLOCK)), (BLOCK, 2 * BLOCK), (3 * BLOCK, TEXT)]


def nonce_of(pack: bytes) -> bytes:
    return pack[SEALED_HEAD - 32 : SEALED_HEAD]


def test_a_sealed_pack_holds_the_plain_one_and_shows_nothing_of_it() -> None:
    plain, sealed = write(HEADER, PARTS), write(HEADER, PARTS, key=KEY)
    assert len(sealed) == sealed_size(len(plain))
    reader, records = read(sealed, RING)
    assert reader.sealed and reader.header == HEADER and records == read(plain)[1]
    assert read(sealed, KeyRing([KEY]))[1] == records
    for secret in (b'"sda"', b"d-abc", b"migration", b"RECD", TEXT[:32], digests(memoryview(TEXT))):
        assert secret not in sealed
    reader, _ = read(plain, RING)
    assert not reader.sealed


@given(st.sampled_from([0, 1, 2, 4]), st.integers(-30, 30), st.integers(1, 200_000))
@settings(max_examples=60, deadline=None)
def test_content_of_every_length_comes_back(frames: int, more: int, step: int) -> None:
    size = max(1, frames * FRAME + more)
    content = pattern(5 * FRAME)[:size]
    buffer = memoryview(bytearray(sealed_size(size)))
    buffer[SEALED_HEAD : SEALED_HEAD + size] = content
    sealed = bytes(KEY.seal(buffer, size))
    assert len(frames_of(sealed)) == -(-size // FRAME)
    readinto = RING.open(sealed[:SEALED_HEAD], io.BytesIO(sealed[SEALED_HEAD:]).readinto)
    found, view = bytearray(), memoryview(bytearray(step))
    while count := readinto(view):
        found += view[:count]
    assert found == content


def test_every_change_of_a_sealed_pack_is_refused() -> None:
    sealed = write(HEADER, PARTS, key=KEY)
    places = [
        *range(SEALED_HEAD + 60),
        *range(SEALED_HEAD + 60, len(sealed), 701),
        *range(len(sealed) - 60, len(sealed)),
    ]
    for place in places:
        bad = bytearray(sealed)
        bad[place] ^= 0x40
        with pytest.raises(PackError):
            read(bytes(bad), RING)
    for length in (*range(200), *range(200, len(sealed), 997), len(sealed) - 1):
        with pytest.raises(PackError):
            read(sealed[:length], RING)
    with pytest.raises(CorruptPack, match="follows"):
        read(sealed + b"\0", RING)


def frames_of(sealed: bytes) -> list[bytes]:
    found, at = [], SEALED_HEAD
    while at < len(sealed):
        length = (int.from_bytes(sealed[at : at + 4], "little") & 0x7FFFFFFF) + 20
        found.append(sealed[at : at + length])
        at += length
    return found


def test_frames_cannot_be_swapped_dropped_cut_off_or_taken_from_another_pack() -> None:
    sealed, other = (write(HEADER, [(0, pattern(4 * BLOCK))], key=KEY) for _ in range(2))
    head, frames = sealed[:SEALED_HEAD], frames_of(sealed)
    assert len(frames) > 3
    assert read(head + b"".join(frames), RING)[1]
    last = struct.pack("<I", FRAME | 1 << 31) + frames[1][4:]
    for bad in (
        [frames[1], frames[0], *frames[2:]],
        frames[1:],
        frames[:-1],
        [*frames[:1], *frames[2:]],
        [frames[0], frames_of(other)[1], *frames[2:]],
        [frames[0], last],
        [*frames, frames[-1]],
        [frames[0], bytes(20), *frames[1:]],
        [frames[0], struct.pack("<I", FRAME + 1) + bytes(FRAME + 17), *frames[1:]],
    ):
        with pytest.raises(CorruptPack):
            read(head + b"".join(bad), RING)
    with pytest.raises(CorruptPack):
        read(other[:SEALED_HEAD] + b"".join(frames), RING)


def test_keys_that_are_not_here_or_wrong() -> None:
    sealed = write(HEADER, PARTS, key=KEY)
    stranger = KeyEncryptionKey(bytes(32))
    for ring in (None, KeyRing([]), KeyRing([stranger, MigrationKey.create(stranger)])):
        with pytest.raises(PackKeyMissing) as caught:
            read(sealed, ring)
        assert (caught.value.key, caught.value.wrapping) == (KEY.id.hex(), WRAPPING.id.hex())
    with pytest.raises(CorruptPack):
        MigrationKey(stranger, GOLDEN_WRAPPED)
    # A head that names one key and carries another, checksum repaired.
    other = MigrationKey.create(WRAPPING)
    body = sealed[PREFIX.size : PREFIX.size + 32] + other.wrapped + nonce_of(sealed)
    head = PREFIX.pack(b"WLPACK\r\n", 1, 1, len(body), zlib.crc32(body)) + body
    with pytest.raises(CorruptPack, match="not the one it names"):
        read(head + sealed[SEALED_HEAD:], RING)
    for length in (0, 16, 31, 33):
        with pytest.raises(ValueError, match="32 bytes"):
            KeyEncryptionKey(bytes(length))
    assert GOLDEN_KEY.hex() not in repr(vars(KEY)) and str(GOLDEN_KEY) not in repr(WRAPPING)


def test_a_stored_key_goes_on_after_a_restart_with_new_nonces() -> None:
    key = MigrationKey.create(WRAPPING)
    again = MigrationKey(WRAPPING, key.wrapped)
    assert again.id == key.id
    packs = [write(HEADER, PARTS, key=each) for each in (key, again, key, again)]
    assert len({nonce_of(pack) for pack in packs}) == 4
    for pack in packs:
        assert read(pack, RING)[1] == read(packs[0], RING)[1]


def test_one_nonce_never_serves_two_contents_even_if_random_bytes_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # As after resuming a machine's snapshot twice: the same pack is made again, with other content.
    monkeypatch.setattr(os, "urandom", lambda count: bytes(count))
    first, same, other = (write(HEADER, parts, key=KEY) for parts in (PARTS, PARTS, [(0, pattern(2 * BLOCK))]))
    assert first == same
    assert nonce_of(first) != nonce_of(other)


def test_a_finished_pack_is_not_sealed_twice() -> None:
    writer = PackWriter(bytearray(1 << 20), HEADER, KEY)
    writer.add_zero(0, 0, BLOCK)
    once = bytes(writer.finish())
    assert bytes(writer.finish()) == once


def test_a_seal_within_a_seal_and_an_envelope_of_another_size_are_unknown() -> None:
    inner = write(HEADER, PARTS, key=KEY)
    buffer = memoryview(bytearray(sealed_size(len(inner))))
    buffer[SEALED_HEAD : SEALED_HEAD + len(inner)] = inner
    with pytest.raises(UnknownPack, match="within a seal"):
        read(bytes(KEY.seal(buffer, len(inner))), RING)
    body = bytes(105)
    with pytest.raises(UnknownPack, match="envelope"):
        read(PREFIX.pack(b"WLPACK\r\n", 1, 1, len(body), zlib.crc32(body)) + body, RING)


def test_a_full_buffer_leaves_room_for_the_seal() -> None:
    buffer = bytearray(1 << 20)
    writer = PackWriter(buffer, HEADER, KEY)
    count = 0
    while writer.room(BLOCK):
        view = writer.slot(BLOCK)
        view[:] = pattern(BLOCK)
        writer.add_data(0, 0, view, digests(view))
        count += 1
    sealed = bytes(writer.finish())
    assert count == 15 and len(read(sealed, RING)[1]) == 15
    with pytest.raises(PackTooLarge):
        PackWriter(memoryview(bytearray(256 << 20 | 1)), HEADER, KEY)


def test_plain_packs_need_no_cryptography() -> None:
    program = "import sys, wavelift.blocks.pack; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
