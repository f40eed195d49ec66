"""Documents in and out."""

import base64
from collections.abc import Iterable
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from wavelift.localcloud.oss.errors import OssError

Element = ElementTree.Element

# A text, or elements in order; a name may come more than once.
Node = str | int | bool | Iterable[tuple[str, Any]]


def document(root: str, node: Node) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}>{_render(node)}</{root}>'.encode()


def _render(node: Node) -> str:
    if isinstance(node, bool):
        return str(node).lower()
    if isinstance(node, str | int):
        return escape(str(node))
    return "".join(f"<{name}>{_render(child)}</{name}>" for name, child in node)


def parse(body: bytes, root: str) -> Element:
    """Without namespaces, which some clients send and some do not."""
    try:
        element = ElementTree.fromstring(body)
    except (ElementTree.ParseError, LookupError, ValueError):  # the latter two of encodings
        raise OssError("MalformedXML") from None
    for each in element.iter():
        each.tag = each.tag.rpartition("}")[2]
    if element.tag != root:
        raise OssError("MalformedXML")
    return element


def dump(element: Element) -> str:
    try:
        return ElementTree.tostring(element, "unicode")
    except RecursionError:
        raise OssError("MalformedXML") from None


def text(element: Element, name: str) -> str:
    found = element.findtext(name)
    if found is None:
        raise OssError("MalformedXML")
    return found


def error(failure: OssError, request_id: str, host: str) -> bytes:
    head = [("Code", failure.code), ("Message", failure.message), ("RequestId", request_id), ("HostId", host)]
    return document("Error", [*head, *failure.details.items()])


def error_header(body: bytes) -> str:
    """The same for replies that have no body."""
    return base64.b64encode(body).decode()
