"""An authority of one's own and a certificate from it, kept with the state: the same after every restart."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY, CERTIFICATE, KEY = "ca.pem", "server.pem", "server.key"
DAYS = 3650


def ensure(folder: Path, region: str, host: str) -> None:
    """Writes the three files, unless the last of them is there."""
    if (folder / AUTHORITY).exists():
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    signer, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _name("Local cloud authority")
    certified = x509.BasicConstraints(ca=True, path_length=0)
    authority = _builder(issuer, issuer, signer.public_key()).add_extension(certified, critical=True)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = (
        _builder(_name("Local cloud"), issuer, key.public_key())
        .add_extension(x509.SubjectAlternativeName(_names(region, host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    private = folder / KEY
    private.unlink(missing_ok=True)
    private.touch(mode=0o600)
    private.write_bytes(secret)
    # The authority's key is not kept: nobody can sign anything else with it.
    _write(folder / CERTIFICATE, certificate.sign(signer, hashes.SHA256()))
    _write(folder / AUTHORITY, authority.sign(signer, hashes.SHA256()))


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _names(region: str, host: str) -> list[x509.GeneralName]:
    names = ["localhost", f"oss-{region}.aliyuncs.com", f"*.oss-{region}.aliyuncs.com"]
    addresses = {"127.0.0.1"}
    try:
        addresses.add(str(ipaddress.ip_address(host)))
    except ValueError:
        names.append(host)
    return [*map(x509.DNSName, names), *(x509.IPAddress(ipaddress.ip_address(each)) for each in sorted(addresses))]


def _write(path: Path, certificate: x509.Certificate) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    partial.rename(path)
