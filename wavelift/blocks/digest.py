"""The unit of comparison: a 64 KiB block and its BLAKE3 digest, with a sentinel for zeroes."""

from __future__ import annotations

from blake3 import blake3

BLOCK = 64 * 1024
DIGEST = 32
SECTOR = 512
SEGMENT = 1 << 30
SEGMENT_BLOCKS = SEGMENT // BLOCK
TABLE = SEGMENT_BLOCKS * DIGEST
MAX_DISK = 1 << 50

ZERO_DIGEST = bytes(DIGEST)
_ZEROES = bytes(1 << 20)

Buffer = bytes | bytearray | memoryview


def blocks_of(length: int) -> int:
    """Blocks that cover `length` bytes; the last may be partial."""
    return -(-length // BLOCK)


def is_zero(data: memoryview) -> bool:
    """Whether all bytes are zero (any length up to 1 MiB); the first bytes decide most blocks at once."""
    # bytes == bytes is a memcmp; comparing memoryviews goes element by element, twenty times slower.
    if data[:16] != _ZEROES[: len(data[:16])]:
        return False
    return bytes(data) == _ZEROES[: len(data)] if len(data) < len(_ZEROES) else bytes(data) == _ZEROES


def digest(block: memoryview) -> bytes:
    """BLAKE3 over the block's real bytes, or 32 zero bytes for a block of zeroes."""
    return ZERO_DIGEST if is_zero(block) else blake3(block).digest()


def digests(data: memoryview) -> bytes:
    """The digests of consecutive blocks, joined; a last partial block counts over its real bytes."""
    return b"".join([digest(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)])
