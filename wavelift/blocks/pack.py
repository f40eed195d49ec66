"""The pack format, records of blocks in transfer or at rest: its values, writer and reader. See docs/format.md."""

from wavelift.blocks.pack_layout import (
    END_SIZE,
    MAX_PACK,
    MAX_RECORD,
    Codec,
    PackDisk,
    PackHeader,
    PackTotals,
    Record,
    encode_end,
    encode_header,
    encode_record,
)
from wavelift.blocks.pack_reader import PackReader, from_memory
from wavelift.blocks.pack_writer import PackWriter

__all__ = [
    "END_SIZE",
    "MAX_PACK",
    "MAX_RECORD",
    "Codec",
    "PackDisk",
    "PackHeader",
    "PackReader",
    "PackTotals",
    "PackWriter",
    "Record",
    "encode_end",
    "encode_header",
    "encode_record",
    "from_memory",
]
