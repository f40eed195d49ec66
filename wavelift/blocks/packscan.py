"""What packs hold, from the headers of their records: the data between them is not read."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from wavelift.blocks.digest import BLOCK, DIGEST, blocks_of
from wavelift.blocks.errors import CorruptPack, UnknownPack
from wavelift.blocks.pack import MAX_RECORD, Codec, PackHeader, PackReader, encode_record
from wavelift.blocks.pack_layout import DATA_MARK, END, END_MARK, END_SIZE, RECORD, RECORD_HEADER, Record

_FRONT = RECORD_HEADER + MAX_RECORD // BLOCK * DIGEST
_CODECS = (Codec.RAW, Codec.ZERO, Codec.ZSTD)

ReadAt = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Place:
    """A record, and where in the pack its payload begins."""

    record: Record
    at: int


def scan(read: ReadAt) -> tuple[PackHeader, list[Place]]:
    """Header and records of a plain pack without copy records; `read(offset, length)` may give fewer bytes at its end.

    Raises `PackError` and its kinds.
    """
    at = 0

    def readinto(view: memoryview) -> int:
        nonlocal at
        got = read(at, len(view))
        view[: len(got)] = got
        at += len(got)
        return len(got)

    header = PackReader(readinto, bytearray()).header
    return header, list(_records(read, at))


def _records(read: ReadAt, at: int) -> Iterator[Place]:
    count = 0
    while True:
        front = read(at, _FRONT)
        if front[:4] == END_MARK and len(front) == END_SIZE:
            _, records, *_, crc = END.unpack(front)
            if zlib.crc32(front[:-4]) != crc or records != count:
                raise CorruptPack("its end record does not match it")
            return
        if front[:4] != DATA_MARK or len(front) < RECORD_HEADER:
            raise CorruptPack("a record does not begin as one")
        _, codec, reserved, disk, offset, length, payload, crc = RECORD.unpack_from(front)
        if codec not in _CODECS or reserved:
            raise UnknownPack("codec", codec)
        size = 0 if codec == Codec.ZERO else blocks_of(min(length, MAX_RECORD)) * DIGEST
        record = Record(disk, offset, length, Codec(codec), front[RECORD_HEADER : RECORD_HEADER + size], payload)
        if encode_record(record) != front[: RECORD_HEADER + size]:
            raise CorruptPack("a record's header does not match its checksum")
        if record.offset % BLOCK or max(payload, len(record.digests) // DIGEST * BLOCK) > MAX_RECORD:
            raise CorruptPack("a record covers what none can")
        at += RECORD_HEADER + size
        yield Place(record, at)
        at += payload
        count += 1
