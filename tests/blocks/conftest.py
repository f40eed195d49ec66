"""The content of the golden files, and how to make packs of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from wavelift.blocks.crypto import KeyRing, MigrationKey
from wavelift.blocks.digest import BLOCK, digests
from wavelift.blocks.pack import PackDisk, PackHeader, PackReader, PackWriter, Record

GOLDEN = Path(__file__).parent / "golden"
HEADER = PackHeader("web", 3, 17, (PackDisk("sda", "d-abc", 4 * BLOCK + 512),))


def pattern(length: int) -> bytes:
    """Bytes anyone can make again: SHA-256 of a counter, joined."""
    pieces = (hashlib.sha256(index.to_bytes(4, "little")).digest() for index in range(-(-length // 32)))
    return b"".join(pieces)[:length]


TEXT = (b"text that compresses " * 4000)[:BLOCK]


# The keys of the golden sealed pack: the key-encryption key, and the migration's key wrapped by it.
GOLDEN_KEY = bytes(range(32))
GOLDEN_WRAPPED = bytes.fromhex("bd2a276ae8c7464c7e8b396674ac6e0e9558c84c6009b3fa413cf06a67a200823e4d720df2419fa9")


def write(
    header: PackHeader,
    parts: list[tuple[int, bytes | int]],
    key: MigrationKey | None = None,
) -> bytes:
    """A pack of (offset, data) and (offset, length of zeroes) parts on disk 0."""
    writer = PackWriter(bytearray(8 << 20), header, key)
    for offset, part in parts:
        if isinstance(part, int):
            writer.add_zero(0, offset, part)
        else:
            view = writer.slot(len(part))
            view[:] = part
            writer.add_data(0, offset, view, digests(view))
    return bytes(writer.finish())


def read(
    data: bytes, keys: KeyRing | None = None, *, copies: bool = False
) -> tuple[PackReader, list[tuple[Record, bytes]]]:
    at = 0

    def readinto(view: memoryview) -> int:
        nonlocal at
        piece = data[at : at + len(view)]
        view[: len(piece)] = piece
        at += len(piece)
        return len(piece)

    reader = PackReader(readinto, keys=keys, copies=copies)
    return reader, [(record, bytes(view)) for record, view in reader.records()]
