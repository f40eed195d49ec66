"""A service's own key and certificate: made once, kept in its state folder, known to clients by the fingerprint."""

from __future__ import annotations

import os
import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from wavelift.pinning import fingerprint_of
from wavelift.service.errors import WaveliftError

FILE = "tls.pem"
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
# A pinned certificate has no term: whoever replaces it changes the pin. RFC 5280 writes "no end" like this.
_BEGIN, _END = datetime(2026, 1, 1), datetime(9999, 12, 31, 23, 59, 59)


class BadIdentity(WaveliftError):
    """The file with the service's key and certificate cannot be used."""

    default_code = "bad_identity"


@dataclass(frozen=True)
class Identity:
    """`pem` is what `file` held, key and certificate; `fingerprint` is what clients pin."""

    file: Path
    pem: bytes = field(repr=False)
    fingerprint: str

    def context(self) -> ssl.SSLContext:
        """For a server."""
        return _context(self.pem)


def service_identity(state: Path) -> Identity:
    """The identity kept in the state folder, made at the first start. Raises `BadIdentity`, OSError."""
    file = state / FILE
    if not file.exists():
        pem, _ = derive_identity(secrets.token_bytes(32))
        _write(file, pem)
    with file.open("rb") as kept:
        if os.fstat(kept.fileno()).st_mode & 0o077:
            raise BadIdentity(f"{file} holds a private key and may be read by others.", f"Run `chmod 600 {file}`.")
        # Once: what is shown and what is said of it are never of two files.
        pem = kept.read()
    try:
        _context(pem)
        certificate = x509.load_pem_x509_certificate(pem)
    except (ssl.SSLError, ValueError) as error:
        raise BadIdentity(
            f"{file} holds no key with its certificate: {error}.",
            "Restore it, or remove it and start again: a new one is made, and clients must be given its fingerprint.",
        ) from None
    return Identity(file, pem, fingerprint_of(certificate.public_bytes(Encoding.DER)))


def derive_identity(secret: bytes) -> tuple[bytes, str]:
    """Key and certificate as PEM, and the fingerprint: always the same for the same secret (32 random bytes or more).

    So an orchestrator knows the fingerprint of a gateway it made without keeping a list. What is derived here must
    never change: it would lock out every gateway that runs.
    """
    # 16 bytes more than the order has make the remainder uniform.
    material = HKDF(hashes.SHA256(), 48, salt=None, info=b"wavelift tls key p-256 1").derive(secret)
    key = ec.derive_private_key(int.from_bytes(material, "big") % (_P256_ORDER - 1) + 1, ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "wavelift")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("wavelift")]), critical=False)
        .sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem = private + certificate.public_bytes(Encoding.PEM)
    return pem, fingerprint_of(certificate.public_bytes(Encoding.DER))


def _context(pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Connections are long and few; a ticket nobody uses would only be one more thing to keep secret.
    context.num_tickets = 0
    # With an empty password a key that is locked is an error, not a question at the terminal.
    with _in_memory(pem) as file:
        context.load_cert_chain(file, password="")
    return context


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A path to it, for a library that takes nothing else; on no disk."""
    fd = os.memfd_create("identity")
    try:
        os.write(fd, content)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _write(file: Path, pem: bytes) -> None:
    partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(pem)
        out.flush()
        os.fsync(out.fileno())
    try:
        # Of two that start at once the first names it, and the other one uses that.
        os.link(partial, file)
    except FileExistsError:
        return
    finally:
        partial.unlink()
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
