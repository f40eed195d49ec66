import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.wire.ranges import parse_range, parse_span

NINES = f"bytes=0-{'9' * 5000}"
SIZES = st.integers(0, 50)
ENDS = st.one_of(st.none(), st.integers(0, 60))


@given(ENDS, ENDS, SIZES)
@example(None, 0, 10)
@example(None, 10, 10)
@example(0, None, 0)
def test_a_range_is_a_slice(begin: int | None, end: int | None, size: int) -> None:
    header = f"bytes={'' if begin is None else begin}-{'' if end is None else end}"
    content = bytes(range(size))
    if begin is None:
        wanted = content[-end:] if end else b""
        inside = end is not None and 0 < end <= size
    else:
        wanted = content[begin:] if end is None else content[begin : end + 1]
        inside = begin < size and (end is None or begin <= end < size)

    usual = parse_range(header, size, standard=False)
    assert usual is None if not inside else content[usual[0] : usual[1] + 1] == wanted

    meaningless = (begin is None and end is None) or (begin is not None and end is not None and end < begin)
    if meaningless:
        assert parse_range(header, size, standard=True) is None
    elif not wanted:
        with pytest.raises(OssError, match="InvalidRange"):
            parse_range(header, size, standard=True)
    else:
        found = parse_range(header, size, standard=True)
        assert found is not None and content[found[0] : found[1] + 1] == wanted


@pytest.mark.parametrize("header", ["", "bytes=", "bytes=-", "bytes=a-b", "byte=0-1", "bytes=5-2", "bytes=--3", NINES])
@pytest.mark.parametrize("standard", [True, False])
def test_what_is_no_range_is_ignored(header: str, standard: bool) -> None:
    assert parse_range(header, 10, standard) is None


def test_of_several_the_first_counts() -> None:
    assert parse_range("bytes=2-3,5-6", 10, True) == (2, 3)


def test_a_copied_part_names_both_ends() -> None:
    assert parse_span("") is None
    assert parse_span("bytes=3-7") == (3, 7)
    for header in ("bytes=3-", "bytes=-3", "3-7", NINES):
        with pytest.raises(OssError, match="InvalidArgument"):
            parse_span(header)
