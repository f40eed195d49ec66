"""Names on NTFS and FAT, which know no case, over files that are told apart by it."""

from __future__ import annotations

from wavelift.guest.errors import UnsupportedGuest
from wavelift.guest.files import GuestFiles
from wavelift.guest.windows.hive import Hive

CONFIG = "/Windows/System32/config"


def real(files: GuestFiles, path: str) -> str:
    """The path as the names on it are written there; what is not there stays as it is given."""
    at = ""
    for part in path.strip("/").split("/"):
        names = files.names(at or "/")
        exact = part if part in names else next((name for name in names if name.lower() == part.lower()), part)
        at = f"{at}/{exact}"
    return at


def open_hive(files: GuestFiles, path: str) -> tuple[str, Hive]:
    """The hive at a path, and its real path."""
    place = real(files, path)
    content = files.read(place)
    if content is None:
        raise UnsupportedGuest(
            f"{path} is not there", "give the disk with Windows; check that its replica was verified"
        )
    return place, Hive(content, place)
