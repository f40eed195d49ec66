"""An initramfs as the kernel sees it: archives one after the other, compressed or not; later ones override."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import lz4.block
import zstandard

from wavelift.guest.errors import UnsupportedGuest
from wavelift.guest.initramfs import cpio

_LZ4_MAGIC = b"\x02\x21\x4c\x18"
_LZ4_WORD = 4
_LZ4_BLOCK = 8 << 20
# A block that does not shrink grows a little.
_LZ4_LONGEST = _LZ4_BLOCK + _LZ4_BLOCK // 255 + 16


@dataclass(frozen=True)
class Segment:
    """One stretch of an initramfs, from `start` to `end`."""

    start: int
    end: int
    compression: str
    entries: tuple[cpio.Entry, ...]


def split(data: bytes) -> list[Segment]:
    """The segments of an initramfs, in the order in which the kernel unpacks them."""
    segments = []
    offset = 0
    while (offset := _skip_padding(data, offset)) < len(data):
        if data[offset : offset + 6] in cpio.MAGICS:
            entries, end = cpio.read_archive(data, offset)
            segments.append(Segment(offset, end, "none", tuple(entries)))
        else:
            name, unpack = _decompressor(data, offset)
            try:
                content, end = unpack(data, offset)
            except (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError) as error:
                raise cpio.CpioError(offset, f"not a {name} stream: {error}") from error
            segments.append(Segment(offset, end, name, tuple(_archives(content))))
        offset = segments[-1].end
    return segments


def extended(data: bytes, archive: bytes) -> bytes:
    """The initramfs, whose last archive is this one: in a segment of its own. After lz4 no kernel finds another one:
    there it becomes part of the last."""
    last = split(data)[-1]
    if last.compression == "lz4":
        content, end = _lz4(data, last.start)
        if not data[end:].strip(b"\0"):
            return data[: last.start] + _to_lz4(content + bytes(-len(content) % 4) + archive)
    # An uncompressed archive has to start at a multiple of four, and one may follow later.
    return data + bytes(-len(data) % 4) + gzip.compress(archive, mtime=0)


def merged(segments: list[Segment]) -> dict[str, cpio.Entry]:
    """What the guest finds once all segments are unpacked, by path."""
    return {entry.path: entry for segment in segments for entry in segment.entries}


def _archives(content: bytes) -> list[cpio.Entry]:
    entries: list[cpio.Entry] = []
    offset = _skip_padding(content, 0)
    while offset < len(content):
        more, offset = cpio.read_archive(content, offset)
        entries += more
        offset = _skip_padding(content, offset)
    return entries


def _skip_padding(data: bytes, offset: int) -> int:
    while data[offset : offset + 4096] and not data[offset : offset + 4096].strip(b"\0"):
        offset += len(data[offset : offset + 4096])
    window = data[offset : offset + 4096]
    return offset + len(window) - len(window.lstrip(b"\0"))


Unpacked = tuple[bytes, int]


def _gzip(data: bytes, offset: int) -> Unpacked:
    unpacker = zlib.decompressobj(wbits=31)
    content = unpacker.decompress(memoryview(data)[offset:]) + unpacker.flush()
    if not unpacker.eof:
        raise cpio.CpioError(offset, "the gzip stream ends early")
    return content, len(data) - len(unpacker.unused_data)


def _xz(data: bytes, offset: int) -> Unpacked:
    unpacker = lzma.LZMADecompressor()
    content = unpacker.decompress(data[offset:])
    if not unpacker.eof:
        raise cpio.CpioError(offset, "the xz stream ends early")
    return content, len(data) - len(unpacker.unused_data)


def _bzip2(data: bytes, offset: int) -> Unpacked:
    unpacker = bz2.BZ2Decompressor()
    content = unpacker.decompress(data[offset:])
    if not unpacker.eof:
        raise cpio.CpioError(offset, "the bzip2 stream ends early")
    return content, len(data) - len(unpacker.unused_data)


def _zstd(data: bytes, offset: int) -> Unpacked:
    unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
    content = unpacker.decompress(data[offset:])
    if not unpacker.eof:
        raise cpio.CpioError(offset, "the zstd stream ends early")
    return content, len(data) - len(unpacker.unused_data)


def _to_lz4(content: bytes) -> bytes:
    packed = [_LZ4_MAGIC]
    for at in range(0, len(content), _LZ4_BLOCK):
        block = lz4.block.compress(content[at : at + _LZ4_BLOCK], mode="high_compression", store_size=False)
        packed += [len(block).to_bytes(_LZ4_WORD, "little"), block]
    return b"".join(packed)


def _lz4(data: bytes, offset: int) -> Unpacked:
    """The frame that kernels read, `lz4 -l`: blocks of 8 MiB, each after its length; a new magic begins another."""
    content = b""
    at = offset
    while len(data) - at >= _LZ4_WORD:
        word = data[at : at + _LZ4_WORD]
        if word == _LZ4_MAGIC:
            at += _LZ4_WORD
            continue
        length = int.from_bytes(word, "little")
        block = data[at + _LZ4_WORD : at + _LZ4_WORD + length]
        # What follows a stream is padding, or another archive.
        if not length or length > _LZ4_LONGEST or len(block) < length:
            break
        try:
            content += lz4.block.decompress(block, uncompressed_size=_LZ4_BLOCK)
        except lz4.block.LZ4BlockError as error:
            raise cpio.CpioError(at, f"not an lz4 block: {error}") from error
        at += _LZ4_WORD + length
    if at == offset + _LZ4_WORD:
        raise cpio.CpioError(offset, "the lz4 stream ends early")
    return content, at


_FORMATS: tuple[tuple[bytes, str, Callable[[bytes, int], Unpacked]], ...] = (
    (b"\x1f\x8b", "gzip", _gzip),
    (b"\xfd7zXZ\0", "xz", _xz),
    (b"\x5d\0\0", "lzma", _xz),
    (b"BZh", "bzip2", _bzip2),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
    (_LZ4_MAGIC, "lz4", _lz4),
)


def _decompressor(data: bytes, offset: int) -> tuple[str, Callable[[bytes, int], Unpacked]]:
    for magic, name, unpack in _FORMATS:
        if data.startswith(magic, offset):
            return name, unpack
    raise UnsupportedGuest(
        f"the initramfs has something unknown at offset {offset}: {data[offset : offset + 8].hex()}",
        "rebuild it on the source with gzip or zstd and replicate again",
    )
