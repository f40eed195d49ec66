"""Pages of names in order, those with a common beginning rolled up into one.

A page costs what it shows: where names are rolled up, the search goes on behind all that begin alike.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

# Items in order with their names, from a name on: the name itself too if the flag is set.
Source = Callable[[str, bool], Iterator[tuple[str, T]]]

_LAST = chr(0x10FFFF)


@dataclass
class Page(Generic[T]):
    items: list[T] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    truncated: bool = False
    last: str = ""  # the name of the last item or prefix shown


def page(source: Source[T], prefix: str, delimiter: str, after: str, limit: int, again: bool = False) -> Page[T]:
    """Names that come after `after`, or with `again` also it, when there is more than one item of a name."""
    result: Page[T] = Page()
    start, inclusive = (prefix, True) if after < prefix else (after, again)
    rows = source(start, inclusive)
    while (row := next(rows, None)) is not None:
        name, item = row
        if not name.startswith(prefix):
            break
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        common = name[: cut + len(delimiter)] if cut >= 0 else ""
        if not common or common > after:
            if len(result.items) + len(result.prefixes) == limit:
                result.truncated = True
                break
            if common:
                result.prefixes.append(common)
            else:
                result.items.append(item)
            result.last = common or name
        if common:
            behind = successor(common)
            rows = source(behind, True) if behind is not None else iter(())
    return result


def successor(text: str) -> str | None:
    """The least text above all that begin with this one, if there is one. UTF-8 has the order of code points."""
    kept = text.rstrip(_LAST)
    if not kept:
        return None
    code = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if 0xD800 <= code < 0xE000 else code)
