"""Writes packs. See docs/format.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wavelift.blocks.digest import DIGEST, blocks_of
from wavelift.blocks.errors import PackTooLarge
from wavelift.blocks.pack_layout import (
    END_SIZE,
    MAX_PACK,
    MAX_RECORDS,
    ORIGIN,
    RECORD_HEADER,
    SEALED_HEAD,
    VERSION,
    Codec,
    PackHeader,
    PackTotals,
    Record,
    encode_end,
    encode_header,
    encode_record,
    sealed_size,
    set_version,
)

if TYPE_CHECKING:  # who writes plain packs needs no cryptography
    from wavelift.blocks.crypto import MigrationKey


class PackWriter:
    """Fills a caller's buffer with one pack, so that data can be read straight to its place.

    Use: `slot()` gives room for up to `length` bytes of data, `add_data` says what of it to keep.
    With a key the pack is sealed by `finish`.
    """

    def __init__(self, buffer: bytearray | memoryview, header: PackHeader, key: MigrationKey | None = None) -> None:
        """Raises `PackTooLarge`, `PackError` for a buffer or header no reader would take."""
        if len(buffer) > MAX_PACK:
            raise PackTooLarge("pack", f"{MAX_PACK} bytes")
        self._key = key
        self._whole: memoryview | None = None
        # Sealing moves the pack towards the end, frame by frame, so it begins where the envelope's head ends.
        self._start = SEALED_HEAD if key is not None else 0
        self._view = memoryview(buffer)
        front = encode_header(header)
        self._at = self._start + len(front)
        self._view[self._start : self._at] = front
        self._records = self._bytes = self._data = 0
        self._copies: list[tuple[int, int]] = []

    @property
    def records(self) -> int:
        return self._records

    @property
    def data_bytes(self) -> int:
        """Bytes of disk sent as data so far (before compression)."""
        return self._data

    @property
    def copies(self) -> Sequence[tuple[int, int]]:
        """(offset, length) of the copy records."""
        return self._copies

    @property
    def size(self) -> int:
        """Bytes of the pack so far, without its end record and its seal."""
        return self._at - self._start

    def room(self, length: int) -> bool:
        """Whether `length` more bytes of data fit, even as sixteen records of one block each."""
        records = max(1, blocks_of(length))
        size = self.size + records * (RECORD_HEADER + DIGEST) + length + END_SIZE
        whole = size if self._key is None else sealed_size(size)
        return whole <= len(self._view) and self._records + records <= MAX_RECORDS

    def slot(self, length: int) -> memoryview:
        """Where `length` bytes of data may be read to; valid until the next `add_*`."""
        start = self._at + RECORD_HEADER + blocks_of(length) * DIGEST
        return self._view[start : start + length]

    def add_zero(self, disk: int, offset: int, length: int) -> None:
        """Zeroes, up to 1 GiB a record; the caller keeps within one segment."""
        self._put(Record(disk, offset, length, Codec.ZERO, b"", 0), memoryview(b""))

    def add_data(
        self,
        disk: int,
        offset: int,
        data: memoryview,
        table: bytes,
        packed: bytes | None = None,
    ) -> None:
        """Data with its digests; `packed` is the same as a zstd frame, where that is shorter."""
        if packed is not None and len(packed) < len(data):
            self._put(Record(disk, offset, len(data), Codec.ZSTD, table, len(packed)), memoryview(packed))
        else:
            self._put(Record(disk, offset, len(data), Codec.RAW, table, len(data)), data)
        self._data += len(data)

    def add_copy(self, disk: int, offset: int, length: int, table: bytes, origin: tuple[int, int]) -> None:
        """Blocks that the volume of disk `origin[0]` of the header held at `origin[1]`. Not for sealed packs."""
        assert self._key is None, "who reads a sealed pack has no volume to copy from"
        self._put(Record(disk, offset, length, Codec.COPY, table, ORIGIN.size, origin), memoryview(b""))
        self._copies.append((offset, length))

    def finish(self) -> memoryview:
        """The whole pack; the buffer belongs to it until it was sent. Nothing can be added any more."""
        if self._whole is None:
            end = encode_end(PackTotals(self._records, self._bytes, self._data))
            self._view[self._at : self._at + len(end)] = end
            if self._copies:
                set_version(self._view, VERSION)
            self._whole = self._view[: self._at + len(end)]
            if self._key is not None:
                self._whole = self._key.seal(self._view, self.size + len(end))
        return self._whole

    def _put(self, record: Record, payload: memoryview) -> None:
        if self._records == MAX_RECORDS:
            raise PackTooLarge("number of records", f"{MAX_RECORDS}")
        front = encode_record(record)
        start = self._at + len(front)
        # The payload moves first: it may lie where the header goes, and slices of one buffer move safely.
        self._view[start : start + len(payload)] = payload
        self._view[self._at : start] = front
        self._at = start + len(payload)
        self._records += 1
        self._bytes += record.length
