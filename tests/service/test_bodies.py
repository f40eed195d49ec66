"""Who may send a service a body, and how large: asked over a real socket, before the body has been sent."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.service.test_service import KEY, SECRET, Harness
from wavelift.pinning import pinned_context
from wavelift.service.bodies import MAX_BODY
from wavelift.service.jobs import JobState

MIB = 1 << 20
LENGTH, CHUNKED = "Content-Length: 3000000000", "Transfer-Encoding: chunked"


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(tmp_path)
    yield harness
    harness.close()


def answer(harness: Harness, *headers: str, body: Iterable[bytes] = ()) -> tuple[int, str]:
    """Status and code for a PUT of which `body` is sent and no more."""
    at = urlsplit(harness.url)
    with (
        socket.create_connection((str(at.hostname), int(at.port or 0)), 20) as plain,
        pinned_context(harness.fingerprint).wrap_socket(plain) as peer,
    ):
        peer.sendall("\r\n".join([f"PUT /v1/jobs/{KEY} HTTP/1.1", "Host: x", *headers, "", ""]).encode())
        for piece in body:
            peer.sendall(piece)
        response = peer.makefile("rb")
        status = int(response.readline().split()[1])
        length = 0
        while line := response.readline().strip().lower():
            if line.startswith(b"content-length:"):
                length = int(line.split()[1])
        return status, str(json.loads(response.read(length))["error"]["code"])


@pytest.mark.parametrize("framing", [LENGTH, CHUNKED])
@pytest.mark.parametrize("token", [[], ["Authorization: Bearer wrong"]])
def test_who_has_no_token_is_refused_before_the_body(harness: Harness, framing: str, token: list[str]) -> None:
    assert answer(harness, framing, *token) == (401, "unauthorized")


def test_a_body_is_refused_by_what_it_says_of_its_length(harness: Harness) -> None:
    assert answer(harness, LENGTH, f"Authorization: Bearer {SECRET}") == (413, "too_large")


def test_and_by_its_length_when_it_says_nothing(harness: Harness) -> None:
    piece = b"100000\r\n" + b" " * MIB + b"\r\n"
    pieces = (piece for _ in range(MAX_BODY // MIB + 1))
    assert answer(harness, CHUNKED, f"Authorization: Bearer {SECRET}", body=pieces) == (413, "too_large")


def test_a_large_spec_arrives_whole(harness: Harness) -> None:
    harness.client.submit(KEY, {"kind": "count", "token": "x" * (8 * MIB)})
    harness.wait(KEY, JobState.SUCCEEDED)
    assert len(harness.tokens[0]) == 8 * MIB
