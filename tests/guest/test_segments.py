"""An initramfs is taken apart as the kernel does, whatever its parts are compressed with."""

import bz2
import gzip
import lzma
import random
import subprocess
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from wavelift.guest.errors import UnsupportedGuest
from wavelift.guest.initramfs import cpio, segments

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@given(st.lists(st.tuples(st.sampled_from(sorted(PACKERS)), st.binary(max_size=100)), min_size=1, max_size=5))
def test_any_sequence_of_segments(parts: list[tuple[str, bytes]]) -> None:
    data = b""
    for number, (packing, content) in enumerate(parts):
        archive = cpio.write_archive([cpio.file(f"f{number}", content), cpio.file("last", b"%d" % number)])
        data += b"\0" * (-len(data) % 4) + PACKERS[packing](archive)
    found = segments.split(data)
    assert [segment.compression for segment in found] == [packing for packing, _ in parts]
    files = segments.merged(found)
    assert files["last"].content == b"%d" % (len(parts) - 1)
    for number, (_, content) in enumerate(parts):
        assert files[f"f{number}"].content == content


def test_two_archives_in_one_stream_and_padding() -> None:
    inner = cpio.write_archive([cpio.file("a", b"1")]) + b"\0" * 8192 + cpio.write_archive([cpio.file("./b", b"2")])
    (segment,) = segments.split(b"\0" * 10000 + gzip.compress(inner))
    assert segment.start == 10000
    assert sorted(segments.merged([segment])) == ["a", "b"]


@pytest.mark.parametrize("packing", ["gzip", "xz", "bzip2", "zstd"])
def test_a_cut_stream_is_an_error(packing: str) -> None:
    packed = PACKERS[packing](cpio.write_archive([cpio.file("a", bytes(range(256)) * 64)]))
    with pytest.raises(cpio.CpioError):
        segments.split(packed[:-5])


def test_unknown_compression_is_refused() -> None:
    with pytest.raises(UnsupportedGuest) as caught:
        segments.split(b"MZ no initramfs")
    assert caught.value.remedy


@pytest.mark.parametrize("size", [1000, (8 << 20) + 5])
def test_lz4_as_kernels_have_it(size: int) -> None:
    archive = cpio.write_archive([cpio.file("a", random.Random(size).randbytes(size)), cpio.file("b", b"old")])
    data = subprocess.run(["lz4", "-l", "-c"], input=archive, capture_output=True, check=True).stdout
    (segment,) = segments.split(data + bytes(64))
    assert (
        segment.compression == "lz4"
        and segments.merged([segment])["a"].content == cpio.read_archive(archive)[0][0].content
    )
    grown = segments.extended(data, cpio.write_archive([cpio.file("b", b"new")]))
    # One stream still: kernels read no further than its end.
    plain = subprocess.run(["lz4", "-d", "-c"], input=grown, capture_output=True, check=True).stdout
    assert plain.startswith(archive[:1000])
    assert segments.merged(segments.split(grown))["b"].content == b"new"
    assert len(segments.split(grown)) == 1
    with pytest.raises(cpio.CpioError):
        segments.split(data[:4])


@pytest.mark.parametrize("packing", sorted(PACKERS))
def test_what_is_appended_stands_over_what_was_there(packing: str) -> None:
    data = PACKERS[packing](cpio.write_archive([cpio.file("a", b"old"), cpio.file("b", b"stays")]))
    found = segments.merged(segments.split(segments.extended(data, cpio.write_archive([cpio.file("a", b"new")]))))
    assert (found["a"].content, found["b"].content) == (b"new", b"stays")
