"""HTTP as it is on the wire: what SDKs never send, and what they rely on."""

import base64
import hashlib
import hmac
import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any
from xml.etree import ElementTree

import oss2
import pytest

KEY, SECRET = "LOCALTEST", "a secret for tests"
GIB = 1024**3


class Connection(http.client.HTTPConnection):
    """One connection, each request signed by hand."""

    def send_signed(self, method: str, target: str, body: Any = None, **headers: str) -> http.client.HTTPResponse:
        self.begin(method, target, **headers)
        self.endheaders()
        if body is not None:
            self.send(body)
        return self.getresponse()

    def begin(self, method: str, target: str, **headers: str) -> None:
        date = formatdate(usegmt=True)
        text = f"{method}\n{headers.get('Content_MD5', '')}\n\n{date}\n{target}"
        signature = base64.b64encode(hmac.new(SECRET.encode(), text.encode(), hashlib.sha1).digest()).decode()
        self.putrequest(method, target)
        self.putheader("Date", date)
        self.putheader("Authorization", f"OSS {KEY}:{signature}")
        for name, value in headers.items():
            self.putheader(name.replace("_", "-"), value)


@pytest.fixture
def line(oss: Any) -> Iterator[Connection]:
    host, _, port = oss.endpoint.partition(":")
    connection = Connection(host, int(port), timeout=20)
    yield connection
    connection.close()


def code(response: http.client.HTTPResponse) -> tuple[int, str | None]:
    return response.status, ElementTree.fromstring(response.read()).findtext("Code")


def files(oss: Any) -> int:
    return sum(1 for _ in oss.store.blobs._folder.glob("??/*"))


def wait_for_files(oss: Any, count: int) -> None:
    deadline = time.monotonic() + 10
    while files(oss) != count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_answers(line: Connection, name: str) -> None:
    response = line.send_signed("GET", f"/{name}/a")
    assert response.headers["Server"] == "AliyunOSS"
    assert len(response.headers["x-oss-request-id"]) == 24
    assert int(response.headers["x-oss-server-time"]) >= 0 and response.headers["Date"]
    assert code(response) == (404, "NoSuchKey")


def test_an_error_without_a_body(line: Connection, name: str) -> None:
    response = line.send_signed("HEAD", f"/{name}/a")
    error = ElementTree.fromstring(base64.b64decode(response.headers["x-oss-err"]))
    assert (response.status, response.read(), error.findtext("Code")) == (404, b"", "NoSuchKey")


@pytest.mark.parametrize(
    "method, target", [("POST", ""), ("POST", "/a"), ("PATCH", "/a"), ("PUT", None), ("DELETE", None)]
)
def test_what_is_no_operation(line: Connection, name: str, method: str, target: str | None) -> None:
    path = "/" if target is None else f"/{name}{target or '/'}"
    assert code(line.send_signed(method, path, Content_Length="0")) == (405, "MethodNotAllowed")


def test_a_length_is_needed(line: Connection, name: str) -> None:
    assert code(line.send_signed("PUT", f"/{name}/a")) == (411, "MissingContentLength")


def test_a_body_of_unknown_length(oss: Any, name: str) -> None:
    pieces = [os.urandom(70_000) for _ in range(30)]
    oss.bucket(name).put_object("a", iter(pieces))
    assert oss.bucket(name).get_object("a").read() == b"".join(pieces)


def test_too_large(line: Connection, name: str) -> None:
    response = line.send_signed("PUT", f"/{name}/a", Content_Length=str(5 * GIB + 1), Expect="100-continue")
    assert code(response) == (400, "EntityTooLarge")
    assert response.headers["Connection"] == "close"


def test_a_refused_body_does_not_spoil_the_connection(oss: Any, line: Connection, name: str) -> None:
    body = os.urandom(3_000_000)
    before = files(oss)
    response = line.send_signed("PUT", "/not-there/a", body, Content_Length=str(len(body)))
    assert code(response) == (404, "NoSuchBucket")
    response = line.send_signed("PUT", f"/{name}/a", body, Content_Length=str(len(body)))
    assert (response.status, response.read()) == (200, b"")
    assert files(oss) == before + 1


def test_a_client_that_goes_away(oss: Any, line: Connection, name: str) -> None:
    before = files(oss)
    line.begin("PUT", f"/{name}/a", Content_Length="9000000")
    line.endheaders()
    line.send(os.urandom(5_000_000))
    wait_for_files(oss, before + 1)
    line.close()
    wait_for_files(oss, before)
    assert not oss.bucket(name).object_exists("a")


def test_a_download_that_is_not_finished(oss: Any, line: Connection, name: str) -> None:
    """The file of an object that was replaced goes when its last reader does, also one who hangs up."""
    bucket, before = oss.bucket(name), files(oss)
    bucket.put_object("a", os.urandom(20_000_000))
    response = line.send_signed("GET", f"/{name}/a")
    assert len(response.read(1000)) == 1000
    bucket.put_object("a", b"new")
    assert files(oss) == before + 2
    response.close()
    line.close()
    wait_for_files(oss, before + 1)


@pytest.mark.parametrize(
    "query, headers",
    [
        ("?response-content-disposition=a%0Ab", {}),
        ("", {"Range": "bytes=5-", "x_oss_range_behavior": "standard"}),
        ("", {"Range": f"bytes=0-{'9' * 5000}"}),
    ],
)
def test_a_download_that_is_refused_keeps_no_file(
    oss: Any, line: Connection, name: str, query: str, headers: dict[str, str]
) -> None:
    bucket, before = oss.bucket(name), files(oss)
    bucket.put_object("a", b"12345")
    bucket.put_object_acl("a", "public-read")
    line.putrequest("GET", f"/{name}/a{query}")
    for header, value in headers.items():
        line.putheader(header.replace("_", "-"), value)
    line.endheaders()
    response = line.getresponse()
    assert response.status < 500 and response.read()
    bucket.delete_object("a")
    assert files(oss) == before


@pytest.mark.parametrize("change", ["replace", "delete"])
def test_a_download_is_not_disturbed(oss: Any, name: str, change: str) -> None:
    bucket, content = oss.bucket(name), os.urandom(20_000_000)
    bucket.put_object("a", content)
    reading = bucket.get_object("a")
    begun = reading.read(100)
    if change == "replace":
        bucket.put_object("a", b"new")
    else:
        bucket.delete_object("a")
    assert begun + reading.read() == content
    assert bucket.object_exists("a") == (change == "replace")


@pytest.mark.parametrize(
    "document", [b"", b"<", b"<Other/>", b"<Delete></Delete>", b"<Delete><Object><Name>a</Name></Object></Delete>"]
)
def test_documents_that_are_none(line: Connection, name: str, document: bytes) -> None:
    md5 = base64.b64encode(hashlib.md5(document).digest()).decode()
    length = str(len(document))
    response = line.send_signed("POST", f"/{name}/?delete", document, Content_MD5=md5, Content_Length=length)
    assert code(response) == (400, "MalformedXML")


def test_a_batch_whose_digest_is_wrong(line: Connection, name: str) -> None:
    md5 = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    response = line.send_signed("POST", f"/{name}/?delete", b"<Delete/>", Content_MD5=md5, Content_Length="9")
    assert code(response) == (400, "BadDigest")


@contextmanager
def threads(*runs: Any) -> Iterator[None]:
    started = [threading.Thread(target=run) for run in runs]
    for thread in started:
        thread.start()
    yield
    for thread in started:
        thread.join()


def test_many_at_once_see_whole_objects(oss: Any, name: str) -> None:
    """Four write one key, four read it: every read is one of the writes, and the last write is what stays."""
    contents = {number: bytes([number]) * (200_000 + number) for number in range(4)}
    seen: list[bool] = []
    bucket = oss.bucket(name)
    bucket.put_object("a", contents[0])

    def write(number: int) -> None:
        own = oss.bucket(name, session=oss2.Session())
        for _ in range(5):
            own.put_object("a", contents[number])

    def read() -> None:
        own = oss.bucket(name, session=oss2.Session())
        for _ in range(5):
            got = own.get_object("a").read()
            seen.append(got == contents[got[0]])

    with threads(*[lambda number=number: write(number) for number in contents], *[read] * 4):
        pass
    assert seen == [True] * 20


def test_a_stalled_upload_holds_nobody_up(oss: Any, line: Connection, name: str) -> None:
    host, _, port = oss.endpoint.partition(":")
    stalled = [Connection(host, int(port)) for _ in range(40)]
    for number, each in enumerate(stalled):
        each.begin("PUT", f"/{name}/stalled-{number}", Content_Length="1000000")
        each.endheaders()
        each.send(b"x" * 1000)
    oss.bucket(name).put_object("a", b"x")
    assert oss.bucket(name).get_object("a").read() == b"x"
    for each in stalled:
        each.close()


def test_a_line_that_is_cut(oss: Any, name: str) -> None:
    """A reset instead of an orderly end."""
    host, _, port = oss.endpoint.partition(":")
    before = files(oss)
    with socket.create_connection((host, int(port))) as raw:
        connection = Connection(host, int(port))
        connection.sock = raw
        connection.begin("PUT", f"/{name}/a", Content_Length="9000000")
        connection.endheaders()
        connection.send(os.urandom(3_000_000))
        wait_for_files(oss, before + 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_for_files(oss, before)
