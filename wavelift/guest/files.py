"""A guest's files as the planning sees them, and what it wants changed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class GuestFiles(Protocol):
    """Reading a guest's files by absolute path; links are followed within the guest."""

    def read(self, path: str) -> bytes | None:
        """The content of a regular file, None where there is none."""

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted; none where there is no folder."""


@dataclass(frozen=True)
class FileEdit:
    """One file that has to change."""

    path: str
    before: bytes
    after: bytes
    reason: str


class DirectoryFiles:
    """A guest's tree unpacked in a folder of this machine; its absolute links are not followed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes | None:
        target = self._root / path.lstrip("/")
        return target.read_bytes() if target.is_file() else None

    def names(self, folder: str) -> list[str]:
        target = self._root / folder.lstrip("/")
        return sorted(entry.name for entry in target.iterdir()) if target.is_dir() else []
