"""The keys of archives: each its own, made of one master, so that who gets the key of one opens no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from wavelift.archive.errors import ArchiveError
from wavelift.blocks.crypto import KEY, KeyEncryptionKey

# The key-encryption key of an archive, by the archive's id.
KeyOf = Callable[[str], KeyEncryptionKey]
_DOMAIN = b"wavelift archive key 1\0"


class BadKey(ArchiveError):
    """What should be a key is none."""

    default_code = "bad_key"


def archive_secret(master: bytes, archive: str) -> bytes:
    """The 32 bytes that open the archive of that id, and no other."""
    return HKDF(SHA256(), KEY, None, _DOMAIN + archive.encode()).derive(master)


def derived(master: bytes) -> KeyOf:
    """The keys of all archives that were made with the master."""
    return lambda archive: KeyEncryptionKey(archive_secret(master, archive))


def given(secret: str) -> KeyOf | None:
    """The key of one archive, as a descriptor has it: in hex, or empty for none. Raises `BadKey`."""
    if not secret:
        return None
    key = KeyEncryptionKey(parse_secret(secret, "The key of the archive"))
    return lambda _: key


def read_master(path: Path) -> bytes:
    """The master that a file holds, as 64 hex digits. Raises `BadKey`."""
    try:
        return parse_secret(path.read_text().strip(), f"What {path} holds")
    except (OSError, UnicodeDecodeError) as error:
        raise BadKey(f"The key file {path} cannot be read: {error}.", "Check its path and rights.") from None


def parse_secret(text: str, what: str) -> bytes:
    """Raises `BadKey` for anything but 64 hex digits; `what` names the text, which is not repeated."""
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != KEY or len(text) != 2 * KEY:
        raise BadKey(f"{what} is no key of {2 * KEY} hex digits.", "Make one: openssl rand -hex 32")
    return secret
