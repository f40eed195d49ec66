"""Patterns for a whole text: * is any letters, ? is one. Nothing else is special."""

import re
from functools import lru_cache


def matches(pattern: str, text: str) -> bool:
    """Pieces between asterisks are taken where they come first: going back finds nothing more and takes for ever."""
    first, *others = _pieces(pattern)
    if not others:
        return first.fullmatch(text) is not None
    *middle, last = others
    found = first.match(text)
    for piece in middle:
        found = found and piece.search(text, found.end())
    if found is None:
        return False
    end = len(text) - len(pattern.rpartition("*")[2])
    return end >= found.end() and last.fullmatch(text, end) is not None


@lru_cache(maxsize=1024)
def _pieces(pattern: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(re.escape(piece).replace(r"\?", "."), re.DOTALL) for piece in pattern.split("*"))
