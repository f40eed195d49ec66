"""NBD exports of real servers: qemu-nbd and nbdkit."""

from __future__ import annotations

import datetime
import ipaddress
import random
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from wavelift.blocks.errors import SourceError
from wavelift.sources.base import Consistency, Extent
from wavelift.sources.nbd import BitmapUnavailable, NbdPointInTime, NbdSource

from .conftest import Serve

MIB = 1 << 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


def read(opened: NbdPointInTime) -> bytes:
    found = bytearray(opened.size)
    opened.readinto(0, memoryview(found))
    return bytes(found)


def test_a_raw_export_has_its_holes_and_its_bytes_whoever_reads_them(tmp_path: Path, serve: Serve) -> None:
    content = bytearray(9 * MIB + 512)
    content[3 * MIB : 5 * MIB] = random.Random(1).randbytes(2 * MIB)
    disk, at = tmp_path / "disk.raw", tmp_path / "nbd"
    with disk.open("wb") as file:
        file.truncate(len(content))
        file.seek(3 * MIB)
        file.write(content[3 * MIB : 5 * MIB])
    serve(at, "qemu-nbd", "-r", "-t", "-f", "raw", "-e", "8", "-k", at, disk)
    opened = NbdSource(f"nbd+unix:///?socket={at}").open()
    assert (opened.size, opened.consistency, opened.tracked) == (len(content), Consistency.MOVING, False)
    assert list(opened.extents()) == [
        Extent(0, 3 * MIB, dirty=True, zero=True),
        Extent(3 * MIB, 2 * MIB, dirty=True, zero=False),
        Extent(5 * MIB, 4 * MIB + 512, dirty=True, zero=True),
    ]
    found = bytearray(len(content))

    def some(number: int) -> None:
        for start in range(number * 300_000, len(found), 8 * 300_000):
            opened.readinto(start, memoryview(found)[start : start + 300_000])

    threads = [threading.Thread(target=some, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == content
    opened.close()


def test_a_bitmap_tells_what_changed_apart_from_what_is_zero(tmp_path: Path, serve: Serve) -> None:
    image, at = tmp_path / "disk.qcow2", tmp_path / "nbd"
    run("qemu-img", "create", "-q", "-f", "qcow2", image, "8M")
    run("qemu-io", "-c", "write -P 1 0 4M", image)
    run("qemu-img", "bitmap", "--add", image, "since")
    run("qemu-io", "-c", "write -P 2 1M 64k", "-c", "write -z -u 2M 128k", "-c", "discard 3M 64k", image)
    serve(at, "qemu-nbd", "-r", "-t", "-B", "since", "-f", "qcow2", "-k", at, image)
    source = NbdSource(f"nbd+unix:///?socket={at}", bitmap="since", consistency=Consistency.OFFLINE)
    opened = source.open("some token")
    assert opened.tracked and opened.consistency is Consistency.OFFLINE
    assert [extent for extent in opened.extents() if extent.dirty] == [
        Extent(1 * MIB, 64 << 10, dirty=True, zero=False),
        Extent(2 * MIB, 128 << 10, dirty=True, zero=True),
        Extent(3 * MIB, 64 << 10, dirty=True, zero=True),
    ]
    content = read(opened)
    assert content[MIB : MIB + 3] == b"\2\2\2" and not any(content[2 * MIB : 2 * MIB + (128 << 10)])
    opened.close()
    # Without an earlier moment to compare with, everything is new.
    first = source.open()
    assert all(extent.dirty for extent in first.extents())
    first.close()
    with pytest.raises(BitmapUnavailable, match="other") as missing:
        NbdSource(f"nbd+unix:///?socket={at}", bitmap="other").open("some token")
    assert missing.value.code == "bitmap_unavailable"


def test_a_server_without_block_status_is_read_whole_and_a_huge_one_in_64_bits(tmp_path: Path, serve: Serve) -> None:
    plain, huge = tmp_path / "plain", tmp_path / "huge"
    serve(plain, "nbdkit", "-f", "-U", plain, "--no-sr", "memory", "4M")
    opened = NbdSource(f"nbd+unix:///?socket={plain}").open()
    assert list(opened.extents()) == [Extent(0, 4 * MIB, dirty=True, zero=False)] and not any(read(opened))
    opened.close()
    size = 1 << 42
    serve(huge, "nbdkit", "-f", "-U", huge, "data", f"size={size}", "data=@0x200000000 1*4")
    opened = NbdSource(f"nbd+unix:///?socket={huge}").open()
    extents = list(opened.extents())
    assert [extent.zero for extent in extents] == [True, False, True]
    assert extents[1].start <= 1 << 33 < extents[2].start and sum(extent.length for extent in extents) == size
    found = bytearray(8)
    opened.readinto(1 << 33, memoryview(found))
    assert found == b"\1\1\1\1\0\0\0\0"
    opened.close()


def test_what_cannot_be_opened_or_read_is_named(tmp_path: Path, serve: Serve) -> None:
    at = tmp_path / "nbd"
    with pytest.raises(SourceError, match=str(at)) as unreachable:
        NbdSource(f"nbd+unix:///?socket={at}").open()
    assert unreachable.value.remedy
    serve(at, "nbdkit", "-f", "-U", at, "--filter=error", "memory", "1M", "error-pread-rate=100%", "error=EIO")
    opened = NbdSource(f"nbd+unix:///?socket={at}").open()
    with pytest.raises(SourceError, match="cannot be read"):
        read(opened)
    opened.close()
    odd = tmp_path / "odd"
    serve(odd, "nbdkit", "-f", "-U", odd, "memory", "1000")
    with pytest.raises(SourceError, match="1000"):
        NbdSource(f"nbd+unix:///?socket={odd}").open()


def test_tls_with_a_shared_key(tmp_path: Path, serve: Serve) -> None:
    keys, wrong = tmp_path / "keys.psk", tmp_path / "wrong.psk"
    keys.write_text(f"mover:{'ab' * 32}\n")
    wrong.write_text(f"mover:{'cd' * 32}\n")
    port = free_port()
    serve(
        port, "nbdkit", "-f", "-i", "127.0.0.1", "-p", str(port), "--tls=require", f"--tls-psk={keys}", "memory", "1M"
    )
    opened = NbdSource(f"nbds://mover@127.0.0.1:{port}/?tls-psk-file={keys}").open()
    assert not any(read(opened))
    opened.close()
    for uri in (f"nbds://mover@127.0.0.1:{port}/?tls-psk-file={wrong}", f"nbd://127.0.0.1:{port}/"):
        with pytest.raises(SourceError):
            NbdSource(uri).open()


def test_tls_with_certificates(tmp_path: Path, serve: Serve) -> None:
    certificates, other = tmp_path / "pki", tmp_path / "other"
    make_certificates(certificates)
    make_certificates(other)
    port = free_port()
    listen = ["-i", "127.0.0.1", "-p", str(port)]
    serve(port, "nbdkit", "-f", *listen, "--tls=require", f"--tls-certificates={certificates}", "memory", "1M")
    opened = NbdSource(f"nbds://127.0.0.1:{port}/?tls-certificates={certificates}").open()
    assert opened.size == MIB and not any(read(opened))
    opened.close()
    with pytest.raises(SourceError):
        NbdSource(f"nbds://127.0.0.1:{port}/?tls-certificates={other}").open()


def make_certificates(folder: Path) -> None:
    """An authority and a server's certificate for 127.0.0.1, under the names gnutls looks for."""
    folder.mkdir()
    now = datetime.datetime.now(datetime.UTC)

    def make(name: str, signer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None) -> ec.EllipticCurvePrivateKey:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer, signing = signer or (subject, key)
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
            .add_extension(address, critical=False)
            .sign(signing, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        (folder / f"{name}-cert.pem").write_bytes(built.public_bytes(pem))
        plain = serialization.NoEncryption()
        (folder / f"{name}-key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        return key

    authority = make("ca", None)
    make("server", (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]), authority))
