"""The client's half of TLS: a peer is who shows the certificate whose fingerprint was handed over beforehand.

No authority vouches for anyone and host names mean nothing: gateways come and go at addresses nobody named. The check
sits in the handshake itself, so nothing of ours leaves before it: not on this connection, and there is no other.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from urllib.parse import urlsplit

_DIGITS = re.compile(r"[0-9a-f]{64}")


class WrongCertificate(ssl.SSLError):
    """The peer showed another certificate than the pinned one; both fingerprints as hex."""

    def __init__(self, pinned: str, shown: str) -> None:
        self.pinned, self.shown = pinned, shown
        super().__init__(0, f"its certificate has the fingerprint {shown}, not {pinned}")


def fingerprint_of(certificate: bytes) -> str:
    """SHA-256 of a certificate (DER), as hex."""
    return hashlib.sha256(certificate).hexdigest()


def read_fingerprint(text: str) -> str:
    """A fingerprint as people and `openssl x509 -fingerprint -sha256` write it, as 64 hex digits. Raises ValueError."""
    digits = text.strip().rpartition("=")[2].replace(":", "").lower()
    if not _DIGITS.fullmatch(digits):
        raise ValueError("a fingerprint is the SHA-256 of a certificate: 64 hex digits")
    return digits


def pin_of(url: str, fingerprint: str) -> str:
    """The fingerprint that whoever answers at `url` must show; empty for http, which shows none.

    Raises ValueError: for https without a fingerprint, for http with one, and for anything else.
    """
    # Written in capitals it is the same scheme, and must not be taken for one that needs no pin.
    scheme = urlsplit(url).scheme
    if scheme == "https":
        return read_fingerprint(fingerprint)
    if scheme != "http":
        raise ValueError(f"{scheme or 'nothing'} is not https, and not http either")
    if fingerprint.strip():
        # Who gives one means to know whom the token goes to.
        raise ValueError("over http nobody shows a certificate; write https, or leave the fingerprint out")
    return ""


def pinned_context(fingerprint: str) -> ssl.SSLContext:
    """For a client: a handshake with any other certificate raises `WrongCertificate`. Raises ValueError."""
    pinned = read_fingerprint(fingerprint)

    def check(shown: bytes | None) -> None:
        found = fingerprint_of(shown or b"")
        if found != pinned:
            raise WrongCertificate(pinned, found)

    # One for blocking sockets, one for those of an event loop; both end their handshake in this method.
    class PinnedSocket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            check(self.getpeercert(binary_form=True))

    class PinnedObject(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            check(self.getpeercert(binary_form=True))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.sslsocket_class = PinnedSocket
    context.sslobject_class = PinnedObject
    return context


def wrong_certificate(error: BaseException | None) -> WrongCertificate | None:
    """The refusal somewhere behind an error of a client library, if that is what it was."""
    while error is not None and not isinstance(error, WrongCertificate):
        error = error.__cause__ or error.__context__
    return error
