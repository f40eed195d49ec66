"""Pages of a list: by number and size, or by token.

A token holds the place of the last item that was shown, not how many were: whatever is made or deleted meanwhile, what
stays is shown once.
"""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from wavelift.localcloud.entities import Entity
from wavelift.localcloud.errors import ApiError, invalid
from wavelift.localcloud.rpc.parameters import PAGE_LIMIT, PAGE_SIZE, Parameters

T = TypeVar("T")
Place = tuple[float, str]


@dataclass(frozen=True)
class Limits:
    """Of MaxResults. Some actions refuse what is out of range, others take the nearest."""

    least: int = 1
    most: int = PAGE_LIMIT
    usual: int = PAGE_SIZE
    nearest: bool = False

    def of(self, p: Parameters) -> int:
        if self.nearest:
            return max(self.least, min(self.most, p.integer("MaxResults") or self.usual))
        return p.integer("MaxResults", self.least, self.most) or self.usual


def by_age(item: Any) -> Place:
    assert isinstance(item, Entity)
    return item.created, item.id


def page(
    p: Parameters, items: Sequence[T], limits: Limits | None = None, place: Callable[[T], Place] = by_age
) -> tuple[Sequence[T], dict[str, Any]]:
    """The items of the page that is asked for, and the fields that describe it.

    ECS calls TotalCount invalid where pages go by token: it is 0 there, so that nobody builds on it.
    """
    if p.text("MaxResults") is not None or p.text("NextToken") is not None:
        found, token = page_by_token(p, items, limits or Limits(), place)
        return found, {"NextToken": token, "TotalCount": 0}
    return page_by_number(p, items)


def page_by_number(p: Parameters, items: Sequence[T]) -> tuple[Sequence[T], dict[str, Any]]:
    number = p.integer("PageNumber", 1) or 1
    size = p.integer("PageSize", 1, PAGE_LIMIT) or PAGE_SIZE
    start = (number - 1) * size
    return items[start : start + size], {"PageNumber": number, "PageSize": size, "TotalCount": len(items)}


def page_by_token(
    p: Parameters, items: Sequence[T], limits: Limits, place: Callable[[T], Place]
) -> tuple[Sequence[T], str]:
    token, size = p.text("NextToken"), limits.of(p)
    left = sorted(items, key=place)
    if token is not None:
        shown = _place(token)
        left = [item for item in left if place(item) > shown]
    return left[:size], _token(place(left[size - 1])) if len(left) > size else ""


def _token(place: Place) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _place(token: str) -> Place:
    try:
        age, name = json.loads(base64.urlsafe_b64decode(token.encode()))
        return float(age), str(name)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise ApiError("InvalidParameter.NextToken", "The specified parameter NextToken is not valid.") from None


def identifiers(p: Parameters, name: str, most: int) -> list[str]:
    """Name.1, Name.2, ...: at most so many."""
    found = p.repeated(name)
    if len(found) > most:
        raise invalid(name, f"There are at most {most}.")
    return found


def tag_list(tags: dict[str, str]) -> dict[str, Any]:
    return {"Tag": [{"TagKey": key, "TagValue": value} for key, value in tags.items()]}
