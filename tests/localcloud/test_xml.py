from typing import Any
from xml.etree import ElementTree

import httpx
import pytest

from tests.localcloud.test_signatures import fields, get, signed
from tests.localcloud.test_wire import send
from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.rpc.formats import Format, failure, success


def document(response: httpx.Response) -> ElementTree.Element:
    assert response.headers["content-type"] == "text/xml;charset=utf-8"
    assert response.text.startswith("<?xml version='1.0' encoding='UTF-8'?>")
    return ElementTree.fromstring(response.text)


def paths(element: ElementTree.Element, prefix: str = "") -> list[tuple[str, str]]:
    here = prefix + element.tag
    inner = [pair for child in element for pair in paths(child, f"{here}/")]
    return inner or [(here, element.text or "")]


def test_a_reply() -> None:
    reply = {
        "Disks": {"Disk": [{"DiskId": "d-1", "Portable": True, "Size": 5}, {"DiskId": "d-2", "Tags": {"Tag": []}}]},
        "Ids": ["a", "b"],
        "NextToken": "",
        "MemorySize": 8.0,
    }
    found = paths(ElementTree.fromstring(success(Format.XML, "DescribeDisks", "ID", reply)), "")
    assert found == [
        ("DescribeDisksResponse/RequestId", "ID"),
        ("DescribeDisksResponse/Disks/Disk/DiskId", "d-1"),
        ("DescribeDisksResponse/Disks/Disk/Portable", "true"),
        ("DescribeDisksResponse/Disks/Disk/Size", "5"),
        ("DescribeDisksResponse/Disks/Disk/DiskId", "d-2"),
        ("DescribeDisksResponse/Disks/Disk/Tags", ""),
        ("DescribeDisksResponse/Ids", "a"),
        ("DescribeDisksResponse/Ids", "b"),
        ("DescribeDisksResponse/NextToken", ""),
        ("DescribeDisksResponse/MemorySize", "8.0"),
    ]


@pytest.mark.parametrize("text", ["<a>&\"'</a>", "]]>", "é 中 \U0001f600", "two\nlines\ttab"])
def test_text_comes_out_as_it_went_in(text: str) -> None:
    assert ElementTree.fromstring(success(Format.XML, "A", "ID", {"Name": text})).findtext("Name") == text


def test_what_xml_cannot_say_is_replaced() -> None:
    assert ElementTree.fromstring(success(Format.XML, "A", "ID", {"Name": "a\x00b\ud800"})).findtext("Name") == "a�b�"


def test_an_error() -> None:
    error = ApiError("InvalidDiskId.NotFound", "no <disk> & none", 404)
    found = dict(paths(ElementTree.fromstring(failure(Format.XML, "Ecs", "ID", "host:1", error))))
    assert found.pop("Error/Recommend").endswith("?q=InvalidDiskId.NotFound&product=Ecs&requestId=ID")
    assert found == {
        "Error/RequestId": "ID",
        "Error/HostId": "host:1",
        "Error/Code": "InvalidDiskId.NotFound",
        "Error/Message": "no <disk> & none",
    }


@pytest.mark.parametrize("form", ["XML", "xml", None])
def test_the_older_kind_gets_xml_unless_it_asks_for_json(ecs: Any, form: str | None) -> None:
    answer = document(get(ecs, signed(fields(Format=form))))
    assert answer.tag == "DescribeRegionsResponse"
    assert answer.findtext("Regions/Region/RegionId") == "cn-local"


@pytest.mark.parametrize("form", ["JSON", "json"])
def test_the_older_kind_in_json(ecs: Any, form: str) -> None:
    response = get(ecs, signed(fields(Format=form)))
    assert response.headers["content-type"] == "application/json;charset=utf-8"
    assert response.json()["Regions"]["Region"][0]["RegionId"] == "cn-local"


def test_errors_come_in_xml_too(ecs: Any) -> None:
    response = get(ecs, signed(fields("DetachDisk", Format=None, DiskId="d-none", InstanceId="i-none")))
    answer = document(response)
    assert response.status_code == 404
    assert [child.tag for child in answer] == ["RequestId", "HostId", "Code", "Message", "Recommend"]
    assert answer.findtext("Code") == "InvalidDiskId.NotFound"


def test_a_format_that_nobody_offers_is_refused_in_xml(ecs: Any) -> None:
    assert document(get(ecs, signed(fields(Format="YAML")))).findtext("Code") == "InvalidParameter.Format"


def test_somebody_looks_with_a_browser(ecs: Any) -> None:
    response = httpx.get(f"http://{ecs.endpoint}/", trust_env=False)
    assert (response.status_code, document(response).findtext("Code")) == (400, "MissingVersion")


def test_the_newer_kind_gets_json_unless_it_accepts_xml(ecs: Any) -> None:
    assert send(ecs, "DescribeRegions").json()["Regions"]
    assert document(send(ecs, "DescribeRegions", accept="text/xml")).tag == "DescribeRegionsResponse"
    assert document(send(ecs, "DescribeRegions", {"Format": "XML"})).tag == "DescribeRegionsResponse"
    assert document(send(ecs, "MakeCoffee", accept="application/xml")).findtext("Code") == "InvalidAction.NotFound"
