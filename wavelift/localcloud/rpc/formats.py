"""Replies and errors as bytes: JSON or XML."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.rpc.request import Request

DATE_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
DECLARATION = "<?xml version='1.0' encoding='UTF-8'?>"
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class Format(Enum):
    JSON = "application/json;charset=utf-8"
    XML = "text/xml;charset=utf-8"


def wanted(request: Request) -> Format:
    """Requests of the older kind get XML unless they ask for JSON, those of the newer kind the other way round."""
    name = request.fields.get("Format", "").upper()
    if name:
        if name not in Format.__members__:
            raise ApiError("InvalidParameter.Format", "Specified parameter format is not valid.")
        return Format[name]
    return default(request)


def default(request: Request) -> Format:
    if not request.by_headers:
        return Format.XML
    accept = request.headers.get("accept", "")
    return Format.XML if "xml" in accept and "json" not in accept else Format.JSON


def success(form: Format, action: str, request_id: str, reply: Mapping[str, Any]) -> bytes:
    body = {"RequestId": request_id, **reply}
    return _xml(f"{action}Response", body) if form is Format.XML else json.dumps(body).encode()


def failure(form: Format, product: str, request_id: str, host: str, error: ApiError) -> bytes:
    query = f"q={quote(error.code)}&product={product}&requestId={request_id}"
    body = {
        "RequestId": request_id,
        "HostId": host,
        "Code": error.code,
        "Message": error.message,
        "Recommend": f"https://api.alibabacloud.com/troubleshoot?{query}",
    }
    return _xml("Error", body) if form is Format.XML else json.dumps(body).encode()


def timestamp(seconds: float) -> str:
    """Empty for what has not happened."""
    return datetime.fromtimestamp(seconds, UTC).strftime(DATE_FORMAT) if seconds else ""


def _xml(root: str, body: Mapping[str, Any]) -> bytes:
    return (DECLARATION + _element(root, body)).encode()


def _element(name: str, value: Any) -> str:
    """A list is its elements, each under the list's name."""
    if isinstance(value, list | tuple):
        return "".join(_element(name, item) for item in value)
    if isinstance(value, Mapping):
        inner = "".join(_element(field, item) for field, item in value.items())
    elif isinstance(value, bool):
        inner = str(value).lower()
    else:
        inner = escape(_NOT_IN_XML.sub("\ufffd", str(value)))
    return f"<{name}>{inner}</{name}>"
