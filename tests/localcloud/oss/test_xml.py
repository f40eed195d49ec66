import pytest

from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.wire import xml


def test_out_and_in() -> None:
    tree = [("Text", "a<b>&\"é'"), ("Number", 1), ("Flag", True), ("Many", [("One", "x")]), ("Many", [])]
    element = xml.parse(xml.document("Root", tree), "Root")
    assert [(child.tag, child.text) for child in element] == [
        ("Text", "a<b>&\"é'"),
        ("Number", "1"),
        ("Flag", "true"),
        ("Many", None),
        ("Many", None),
    ]
    assert element.findtext("Many/One") == "x"


def test_namespaces_do_not_matter() -> None:
    body = b'<?xml version="1.0"?><Root xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Key>a</Key></Root>'
    assert xml.text(xml.parse(body, "Root"), "Key") == "a"


def encoded(name: str) -> bytes:
    return f'<?xml version="1.0" encoding="{name}"?><Root/>'.encode()


def test_what_is_nested_too_deeply_is_not_written() -> None:
    with pytest.raises(OssError, match="MalformedXML"):
        xml.dump(xml.parse(b"<a>" * 20_000 + b"</a>" * 20_000, "a"))


@pytest.mark.parametrize("body", [b"", b"<Root>", b"<Other/>", b"\xff", *map(encoded, ["foo", "utf-7", "rot13"])])
def test_malformed(body: bytes) -> None:
    with pytest.raises(OssError, match="MalformedXML"):
        xml.parse(body, "Root")
    with pytest.raises(OssError, match="MalformedXML"):
        xml.text(xml.parse(b"<Root/>", "Root"), "Key")


def test_an_error_names_its_details() -> None:
    element = xml.parse(xml.error(OssError("NoSuchKey", Key="a<b"), "ID", "host"), "Error")
    assert {child.tag: child.text for child in element} == {
        "Code": "NoSuchKey",
        "Message": "The specified key does not exist.",
        "RequestId": "ID",
        "HostId": "host",
        "Key": "a<b",
    }
