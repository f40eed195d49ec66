import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from wavelift.localcloud.oss import certificate


def shake_hands(oss: Any, name: str, authority: Path) -> None:
    host, _, port = oss.tls_endpoint.partition(":")
    context = ssl.create_default_context(cafile=str(authority))
    with socket.create_connection((host, int(port))) as raw, context.wrap_socket(raw, server_hostname=name):
        pass


@pytest.mark.parametrize(
    "name", ["127.0.0.1", "localhost", "oss-cn-local.aliyuncs.com", "bucket.oss-cn-local.aliyuncs.com"]
)
def test_the_names_it_is_for(oss: Any, name: str) -> None:
    shake_hands(oss, name, oss.ca)


def test_other_names_and_other_authorities(oss: Any, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
        shake_hands(oss, "example.org", oss.ca)
    certificate.ensure(tmp_path, "cn-local", "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(oss, "localhost", tmp_path / certificate.AUTHORITY)


def test_made_once_and_whole(tmp_path: Path) -> None:
    certificate.ensure(tmp_path, "cn-local", "cloud.example")
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(first) == {certificate.AUTHORITY, certificate.CERTIFICATE, certificate.KEY}
    assert (tmp_path / certificate.KEY).stat().st_mode & 0o077 == 0
    certificate.ensure(tmp_path, "cn-local", "cloud.example")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    # Killed before the last of the three: all are made again.
    (tmp_path / certificate.AUTHORITY).unlink()
    certificate.ensure(tmp_path, "cn-local", "cloud.example")
    ssl.create_default_context().load_cert_chain(tmp_path / certificate.CERTIFICATE, tmp_path / certificate.KEY)
    assert (tmp_path / certificate.CERTIFICATE).read_bytes() != first[certificate.CERTIFICATE]
