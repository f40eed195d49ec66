from fastcrc import crc64
from hypothesis import given
from hypothesis import strategies as st

from wavelift.localcloud.oss.model.digests import Digest, combine


@given(st.lists(st.binary(max_size=300)))
def test_checks_of_parts_make_the_check_of_the_whole(parts: list[bytes]) -> None:
    combined, digest = 0, Digest(sha256=True)
    for part in parts:
        combined = combine(combined, crc64.xz(part), len(part))
        digest.update(part)
    assert combined == digest.crc64 == crc64.xz(b"".join(parts))


def test_the_check_value_of_the_standard() -> None:
    assert crc64.xz(b"123456789") == 0x995DC9BBDF1939FA
    assert combine(crc64.xz(b"1234"), crc64.xz(b"56789"), 5) == 0x995DC9BBDF1939FA


def test_lengths_far_beyond_memory() -> None:
    """A terabyte of zeros in front, doubled from one byte."""
    crc, length = crc64.xz(b"\0"), 1
    while length < 1 << 40:
        crc, length = combine(crc, crc, length), length * 2
    other, half = crc64.xz(bytes(1 << 20)), 1 << 20
    while half < 1 << 40:
        other, half = combine(other, other, half), half * 2
    assert crc == other
