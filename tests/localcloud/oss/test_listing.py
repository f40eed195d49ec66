from collections.abc import Iterator

from hypothesis import example, given
from hypothesis import strategies as st

from wavelift.localcloud.oss.model.listing import Page, page, successor

NAMES = st.text("ab/\ud7ff\ue000\U0010ffff", max_size=5)


class Names:
    """What pages are made of; counts what was taken."""

    def __init__(self, ordered: list[str]) -> None:
        self.ordered = ordered
        self.taken = 0

    def __call__(self, start: str, inclusive: bool) -> Iterator[tuple[str, str]]:
        for name in self.ordered:
            if name > start or (inclusive and name == start):
                self.taken += 1
                yield name, name


def simple(names: list[str], prefix: str, delimiter: str, after: str) -> list[str]:
    """Everything at once and in the plainest way; what is rolled up ends in the delimiter and is marked."""
    shown: list[str] = []
    for name in sorted(names):
        rest = name[len(prefix) :]
        if not name.startswith(prefix):
            continue
        rolled = bool(delimiter) and delimiter in rest
        item = "+" + prefix + rest[: rest.index(delimiter) + len(delimiter)] if rolled else "-" + name
        if item[1:] > after and item not in shown:
            shown.append(item)
    return shown


@given(st.sets(NAMES, max_size=20), NAMES, st.sampled_from(["", "/", "a", "//", "ab"]), NAMES, st.integers(1, 4))
@example({"a/b", "a/c", "b"}, "", "/", "a/b", 1)
def test_pages_in_a_row_are_the_whole(names: set[str], prefix: str, delimiter: str, after: str, limit: int) -> None:
    ordered = sorted(names)
    source = Names(ordered)
    found: list[str] = []
    marker = after
    while True:
        result: Page[str] = page(source, prefix, delimiter, marker, limit)
        assert len(result.items) + len(result.prefixes) <= limit
        found += sorted(["-" + item for item in result.items] + ["+" + each for each in result.prefixes], key=_name)
        if not result.truncated:
            break
        assert result.last > marker
        marker = result.last
    assert found == simple(ordered, prefix, delimiter, after)


def _name(item: str) -> str:
    return item[1:]


def test_what_is_rolled_up_is_not_walked_through() -> None:
    names = [f"{folder}/{number:04}" for folder in "abc" for number in range(1000)]
    source = Names(names)
    assert page(source, "", "/", "", 10).prefixes == ["a/", "b/", "c/"]
    assert source.taken <= 4


@given(NAMES, NAMES)
def test_the_successor_is_above_all_that_begin_alike(text: str, rest: str) -> None:
    behind = successor(text)
    if behind is None:
        assert not text.strip("\U0010ffff")
    else:
        assert text + rest < behind
        assert (text + rest).encode() < behind.encode()
