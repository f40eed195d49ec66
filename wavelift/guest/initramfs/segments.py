"""An initramfs as the kernel sees it: archives one after the other, compressed or not; later ones override."""

import bz2
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import zstandard

from wavelift.guest.errors import UnsupportedGuest
from wavelift.guest.initramfs import cpio


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


def _lz4(data: bytes, offset: int) -> Unpacked:
    raise UnsupportedGuest(
        "the initramfs is compressed with lz4, which is not read yet",
        "set COMPRESS=zstd in /etc/initramfs-tools/initramfs.conf on the source, run update-initramfs -u -k all, "
        "and replicate again",
    )


_FORMATS: tuple[tuple[bytes, str, Callable[[bytes, int], Unpacked]], ...] = (
    (b"\x1f\x8b", "gzip", _gzip),
    (b"\xfd7zXZ\0", "xz", _xz),
    (b"\x5d\0\0", "lzma", _xz),
    (b"BZh", "bzip2", _bzip2),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
    (b"\x02\x21\x4c\x18", "lz4", _lz4),
)


def _decompressor(data: bytes, offset: int) -> tuple[str, Callable[[bytes, int], Unpacked]]:
    for magic, name, unpack in _FORMATS:
        if data.startswith(magic, offset):
            return name, unpack
    raise UnsupportedGuest(
        f"the initramfs has something unknown at offset {offset}: {data[offset : offset + 8].hex()}",
        "rebuild it on the source with gzip or zstd and replicate again",
    )
