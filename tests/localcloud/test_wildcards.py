import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavelift.localcloud.wildcards import matches


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("", "", True),
        ("", "a", False),
        ("*", "", True),
        ("**", "a/b\nc", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("?*?", "a", False),
        ("a?c", "a\nc", True),
        ("[a-z].*", "a.b", False),
        ("[a-z].*", "[a-z].b", True),
        ("\\?", "\\a", True),
        ("ab*ab*b", "abab", False),
    ],
)
def test_what_matches(pattern: str, text: str, expected: bool) -> None:
    assert matches(pattern, text) is expected


@given(pattern=st.text("ab*?[", max_size=8), text=st.text("ab[", max_size=10))
def test_as_a_regular_expression_says(pattern: str, text: str) -> None:
    said = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern)
    assert matches(pattern, text) is bool(re.fullmatch(said, text))


def test_no_pattern_takes_for_ever() -> None:
    # With going back, each of these would outlast whoever waits for it.
    assert not matches("*a" * 500 + "b", "a" * 1000)
    assert not matches("*?a" * 500 + "b", "a" * 2000)
