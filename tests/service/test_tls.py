"""Certificates made by the services, pinned by their clients: over real sockets, with somebody in between."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.agent.conftest import Service
from tests.service.test_service import SECRET, Harness
from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.blocks.errors import WrongGateway
from wavelift.blocks.sink import open_sink
from wavelift.pinning import pin_of, pinned_context, read_fingerprint
from wavelift.service.client import AsyncServiceClient, ServiceClient, ServiceUnreachable, WrongFingerprint
from wavelift.service.errors import InvalidRequest
from wavelift.service.rest import build_app, shared_secret
from wavelift.service.server import listen, make_server, url_of
from wavelift.service.tls import FILE, BadIdentity, derive_identity, service_identity

PINNED = "7" * 64


class Between:
    """A TLS server with a certificate of its own; `heard` is everything that anyone told it inside of TLS."""

    def __init__(self, folder: Path) -> None:
        identity = service_identity(folder)
        self.fingerprint, self._context = identity.fingerprint, identity.context()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard = b""
        self.asked = False
        self._done = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        peer, _ = self._listener.accept()
        peer.settimeout(10)
        self.asked = True
        # A client may leave in the middle of the handshake, or just after it.
        with suppress(ssl.SSLError, ConnectionError), self._context.wrap_socket(peer, server_side=True) as secured:
            while data := secured.recv(4096):
                self.heard += data
        self._done.set()

    def what_it_heard(self) -> bytes:
        """Once the client has gone."""
        assert self._done.wait(10) and self.asked
        return self.heard

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def between(tmp_path: Path) -> Iterator[Between]:
    made = Between(tmp_path)
    yield made
    made.close()


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(tmp_path)
    yield harness
    harness.close()


def ask(url: str) -> None:
    ServiceClient(url, SECRET, PINNED).jobs()


def ask_async(url: str) -> None:
    async def scenario() -> None:
        async with AsyncServiceClient(url, SECRET, PINNED) as client:
            await client.job("m/1/copy")

    asyncio.run(scenario())


@pytest.mark.parametrize("call", [ask, ask_async])
def test_who_shows_another_certificate_hears_nothing(between: Between, call: Callable[[str], None]) -> None:
    with pytest.raises(WrongFingerprint) as caught:
        call(between.url)
    assert between.what_it_heard() == b""
    error = caught.value
    assert (error.pinned, error.shown, error.code) == (PINNED, between.fingerprint, "wrong_fingerprint")
    assert PINNED in error.message and between.fingerprint in error.message and between.url in error.message
    assert "enter the fingerprint that it prints" in error.remedy and SECRET not in str(error)


def test_a_gateway_with_another_certificate_gets_neither_token_nor_pack(between: Between) -> None:
    descriptor = SinkDescriptor(url=between.url, fingerprint=PINNED, volume="d-1", generation=1, token="a-token")
    # A minute would pass if this were taken for a network that is down.
    sink = open_sink(descriptor, give_up_seconds=60)
    with pytest.raises(WrongGateway) as caught:
        sink.put(1, memoryview(b"pack"))
    sink.close()
    assert between.what_it_heard() == b""
    error = caught.value
    assert (error.code, error.pinned, error.shown) == ("wrong_fingerprint", PINNED, between.fingerprint)
    assert PINNED in error.message and between.fingerprint in error.message and error.remedy


def test_a_fingerprint_is_taken_as_people_write_it(harness: Harness) -> None:
    digits = harness.fingerprint
    colons = ":".join(digits[at : at + 2] for at in range(0, 64, 2)).upper()
    for text in (digits.upper(), f" {digits}\n", colons, f"sha256 Fingerprint={colons}"):
        with ServiceClient(harness.url, SECRET, text) as client:
            assert client.jobs() == []


@pytest.mark.parametrize("text", ["", "7" * 63, "7" * 65, "g" * 64, "SHA256"])
def test_https_without_a_usable_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        read_fingerprint(text)
    with pytest.raises(InvalidRequest) as caught:
        ServiceClient("https://127.0.0.1:1", SECRET, text)
    assert "prints when it starts" in caught.value.remedy and SECRET not in str(caught.value)
    with pytest.raises(ValueError, match="64 hex digits"):
        SinkDescriptor(url="https://g", fingerprint=text, volume="d-1", generation=1, token="t")


@pytest.mark.parametrize("scheme", ["HTTPS", "Https", "hTTps"])
def test_a_scheme_in_capitals_is_pinned_like_any_other(between: Between, scheme: str) -> None:
    with pytest.raises(WrongFingerprint):
        ask(between.url.replace("https", scheme))
    assert between.what_it_heard() == b""
    with pytest.raises(InvalidRequest):
        ServiceClient(between.url.replace("https", scheme), SECRET)


@pytest.mark.parametrize(
    ("url", "fingerprint"),
    [("http://127.0.0.1:1", PINNED), ("HTTP://127.0.0.1:1", PINNED), ("ftp://127.0.0.1:1", ""), ("127.0.0.1:1", "")],
)
def test_a_pin_that_nobody_could_check_is_refused_and_so_is_what_is_not_http(url: str, fingerprint: str) -> None:
    for client in (ServiceClient, AsyncServiceClient):
        with pytest.raises(InvalidRequest) as caught:
            client(url, SECRET, fingerprint)
        assert url in caught.value.message and SECRET not in str(caught.value)
    with pytest.raises(ValueError, match="http"):
        SinkDescriptor(url=url, fingerprint=fingerprint, volume="d-1", generation=1, token="t")
    assert pin_of("http://127.0.0.1:1", "") == ""


def test_neither_plain_http_nor_an_old_tls_gets_an_answer(harness: Harness) -> None:
    with pytest.raises(ServiceUnreachable) as caught:
        ServiceClient(harness.url.replace("https", "http"), SECRET).health()
    assert "it takes https only" in caught.value.remedy
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode, old.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2
    host, _, port = harness.url.removeprefix("https://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as peer, pytest.raises(ssl.SSLError):
        old.wrap_socket(peer)


def test_programs_that_know_authorities_only_can_trust_the_certificate_itself(harness: Harness, tmp_path: Path) -> None:
    """curl, Prometheus: the certificate as the authority, `wavelift` as the name of the server."""
    certificate = x509.load_pem_x509_certificate((tmp_path / FILE).read_bytes())
    trusting = ssl.create_default_context(cadata=certificate.public_bytes(Encoding.PEM).decode())
    host, _, port = harness.url.removeprefix("https://").rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as peer,
        trusting.wrap_socket(peer, server_hostname="wavelift") as secured,
    ):
        secured.sendall(b"GET /v1/health HTTP/1.1\r\nHost: wavelift\r\nConnection: close\r\n\r\n")
        assert secured.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_restart_keeps_key_and_fingerprint_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    first, others = service_identity(tmp_path), tmp_path / "others"
    others.mkdir()
    content = first.file.read_bytes()
    assert service_identity(tmp_path) == first and first.file.read_bytes() == content
    assert first.file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == [FILE]
    assert service_identity(others).fingerprint != first.fingerprint


def _shorter(pem: bytes) -> bytes:
    return pem[: len(pem) // 2]


def _another_key(pem: bytes) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + x509.load_pem_x509_certificate(pem).public_bytes(Encoding.PEM)


def test_of_starts_at_once_all_have_one_identity_and_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noting(fd: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noting)
    for number in range(5):
        state = tmp_path / str(number)
        state.mkdir()
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(service_identity, [state] * 4))
        assert len(set(found)) == 1
        assert [each.name for each in state.iterdir()] == [FILE] and str(state) in synced


def test_certificate_and_fingerprint_stay_those_of_one_file(harness: Harness, tmp_path: Path) -> None:
    kept = service_identity(tmp_path)
    (tmp_path / FILE).write_bytes(derive_identity(b"z" * 32)[0])
    listener = socket.create_server(("127.0.0.1", 0))
    heard: list[bytes] = []

    def serve() -> None:
        peer, _ = listener.accept()
        with kept.context().wrap_socket(peer, server_side=True) as secured:
            heard.append(secured.recv(10))

    thread = threading.Thread(target=serve)
    thread.start()
    with (
        listener,
        socket.create_connection(listener.getsockname(), timeout=10) as peer,
        pinned_context(kept.fingerprint).wrap_socket(peer) as secured,
    ):
        secured.sendall(b"x")
        thread.join(10)
    assert heard == [b"x"]


def test_https_to_a_service_without_tls_says_so(harness: Harness) -> None:
    listener = listen("127.0.0.1:0")
    server = make_server(build_app("test", harness.runner, shared_secret(SECRET)), None)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    with pytest.raises(ServiceUnreachable) as caught:
        ServiceClient(url_of(listener, None).replace("http", "https"), SECRET, PINNED).health()
    server.should_exit = True
    thread.join(10)
    assert "speaks no TLS" in caught.value.remedy and "--plaintext" in caught.value.remedy


@pytest.mark.parametrize("damage", [_shorter, _another_key, lambda _: b"", lambda _: b"\xff" * 700])
def test_a_damaged_file_is_an_error_and_never_a_new_identity(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = service_identity(tmp_path).file
    damaged = damage(file.read_bytes())
    file.write_bytes(damaged)
    with pytest.raises(BadIdentity) as caught:
        service_identity(tmp_path)
    assert caught.value.code == "bad_identity" and str(file) in caught.value.message
    assert "clients must be given its fingerprint" in caught.value.remedy
    assert file.read_bytes() == damaged


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    file = service_identity(tmp_path).file
    file.chmod(0o640)
    with pytest.raises(BadIdentity, match="may be read by others") as caught:
        service_identity(tmp_path)
    assert caught.value.remedy == f"Run `chmod 600 {file}`."


def test_what_is_derived_from_a_secret_never_changes() -> None:
    """Another answer would lock the orchestrator out of every gateway that runs."""
    pem, fingerprint = derive_identity(b"x" * 32)
    assert fingerprint == "7155e38a7907661f53de721507cc6ada7647753f1f58e0ffa02662843207c60d"
    assert derive_identity(b"x" * 32) == (pem, fingerprint)
    assert derive_identity(b"y" * 32)[1] != fingerprint
    assert len(pem) < 1024, "it travels in user data"


def test_an_agent_says_its_fingerprint_is_plain_only_if_told_and_refuses_a_damaged_key(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    state = ("--state", str(tmp_path / "ag"), "--token-file", str(tmp_path / "secret"))
    service = Service("agent", tmp_path, *state)
    try:
        assert service.url.startswith("https://") and "PLAINTEXT" not in service.log()
        # It is read from the folder, so that a restart says the same.
        assert service.fingerprint == service_identity(tmp_path / "ag").fingerprint
        with service.client(SECRET) as client:
            assert client.get("/v1/disks") == []
        service.stop()
        plain = Service("agent", tmp_path, *state, "--plaintext")
        try:
            assert plain.url.startswith("http://") and plain.fingerprint == ""
            with plain.client(SECRET) as client:
                assert client.get("/v1/disks") == []
            assert "PLAINTEXT: whoever can read this network can read the disks" in plain.log()
        finally:
            plain.stop()
        (tmp_path / "ag" / FILE).write_bytes(b"")
        with pytest.raises(AssertionError, match="holds no key with its certificate"):
            service.start()
        assert "PRIVATE KEY" not in service.log()
    finally:
        service.stop()
