"""A guest's files as the planning sees them, and what it wants changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

_LINKS_FOLLOWED = 40


@dataclass(frozen=True)
class Link:
    """A symbolic link, by what it says."""

    target: str


# What is at a path; None where nothing is.
Content = bytes | Link | None


class GuestFiles(Protocol):
    """Reading a guest's files by absolute path; links are followed within the guest."""

    def read(self, path: str) -> bytes | None:
        """The content of a regular file, None where there is none."""

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted; none where there is no folder."""

    def link(self, path: str) -> str | None:
        """What a symbolic link says, None where there is none; the last part of the path is not followed."""


def text_of(files: GuestFiles, path: str) -> str:
    """A file's text, empty where there is none; whatever its encoding, what is not touched can be written as it was."""
    return (files.read(path) or b"").decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class FileEdit:
    """A file to be made, changed or taken away. Folders on the way to a new one are made; one that is there keeps its
    owner, mode and labels, and `mode` is that of a new one."""

    path: str
    before: Content
    after: Content
    reason: str
    mode: int = 0o644


class DirectoryFiles:
    """A guest's tree unpacked in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes | None:
        target = self.real(path)
        return target.read_bytes() if target is not None and target.is_file() else None

    def names(self, folder: str) -> list[str]:
        target = self.real(folder)
        return sorted(entry.name for entry in target.iterdir()) if target is not None and target.is_dir() else []

    def link(self, path: str) -> str | None:
        parent = self.real(str(PurePosixPath(path).parent))
        target = parent / PurePosixPath(path).name if parent is not None else None
        return str(target.readlink()) if target is not None and target.is_symlink() else None

    def real(self, path: str) -> Path | None:
        """Where a path leads, absolute links and too many dots within the root; None for links without end."""
        left = list(reversed(PurePosixPath(path).parts[1:]))
        at = self._root
        followed = 0
        while left:
            part = left.pop()
            if part == "..":
                at = at.parent if at != self._root else at
            elif (at / part).is_symlink():
                followed += 1
                if followed > _LINKS_FOLLOWED:
                    return None
                target = PurePosixPath((at / part).readlink())
                if target.is_absolute():
                    at = self._root
                left += reversed(target.parts[1:] if target.is_absolute() else target.parts)
            elif part != ".":
                at = at / part
        return at
