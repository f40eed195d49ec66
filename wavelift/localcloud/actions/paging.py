"""Pages of a list: by number and size, or by token."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any, TypeVar

from wavelift.localcloud.errors import invalid
from wavelift.localcloud.rpc.parameters import PAGE_LIMIT, PAGE_SIZE, Parameters

T = TypeVar("T")


def page(p: Parameters, items: Sequence[T]) -> tuple[Sequence[T], dict[str, Any]]:
    """The items of the page that is asked for, and the fields that describe it."""
    most, token = p.integer("MaxResults", 1, PAGE_LIMIT), p.text("NextToken")
    if most is not None or token is not None:
        start = _offset(token) if token is not None else 0
        end = start + (most or PAGE_SIZE)
        following = _token(end) if end < len(items) else ""
        return items[start:end], {"NextToken": following, "TotalCount": len(items)}
    number = p.integer("PageNumber", 1) or 1
    size = p.integer("PageSize", 1, PAGE_LIMIT) or PAGE_SIZE
    start = (number - 1) * size
    return items[start : start + size], {"PageNumber": number, "PageSize": size, "TotalCount": len(items)}


def _token(offset: int) -> str:
    return base64.urlsafe_b64encode(str(offset).encode()).decode()


def _offset(token: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, binascii.Error):
        raise invalid("NextToken") from None


def tag_list(tags: dict[str, str]) -> dict[str, Any]:
    return {"Tag": [{"TagKey": key, "TagValue": value} for key, value in tags.items()]}
