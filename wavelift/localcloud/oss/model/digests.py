"""Checks over content: the MD5 an ETag is made of and the CRC-64 that OSS gives with everything."""

import hashlib
from functools import lru_cache

from fastcrc import crc64

_POLYNOMIAL = 0xC96C5795D7870F42  # CRC-64/XZ, lowest power in the highest bit
_ONE = 1 << 63


def combine(first: int, second: int, length: int) -> int:
    """The CRC-64 of two contents in a row, from theirs; `length` is the second's."""
    return _times(first, _shift(length)) ^ second


def multipart_etag(digests: list[str]) -> str:
    joined = b"".join(bytes.fromhex(digest) for digest in digests)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest().upper()}-{len(digests)}"


class Digest:
    def __init__(self, sha256: bool = False) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256() if sha256 else None
        self.crc64 = 0

    def update(self, data: bytes | bytearray) -> None:
        self._md5.update(data)
        self.crc64 = crc64.xz(data, self.crc64)
        if self._sha256 is not None:
            self._sha256.update(data)

    @property
    def md5(self) -> str:
        return self._md5.hexdigest().upper()

    @property
    def sha256(self) -> str:
        """Empty if it was not asked for."""
        return self._sha256.hexdigest() if self._sha256 is not None else ""


def _times(a: int, b: int) -> int:
    """The product of two polynomials, modulo the CRC's."""
    product, bit = 0, _ONE
    while bit:
        if a & bit:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
        bit >>= 1
    return product


@lru_cache(maxsize=1024)  # parts of one upload are nearly all of one length
def _shift(length: int) -> int:
    """What a CRC is multiplied by when `length` bytes follow: x to the power of their bits."""
    result, square, bits = _ONE, _ONE >> 1, length * 8
    while bits:
        if bits & 1:
            result = _times(result, square)
        square = _times(square, square)
        bits >>= 1
    return result
