"""A guest's files as they would be: each concern sees what those before it changed, and adds to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from wavelift.guest.files import Content, FileEdit, GuestFiles, Link


class Draft:
    """`GuestFiles` over others, of which nothing is changed. A file has one name here: where a guest has two for one,
    every concern has to use the same."""

    def __init__(self, files: GuestFiles) -> None:
        self._files = files
        self._edits: dict[str, FileEdit] = {}
        self.warnings: list[str] = []

    def read(self, path: str) -> bytes | None:
        edit = self._edits.get(path)
        if edit is None:
            return self._files.read(path)
        if isinstance(edit.after, Link):
            # As it leads; what it leads to may be changed as well.
            return self.read(str(PurePosixPath(path).parent / edit.after.target))
        return edit.after

    def names(self, folder: str) -> list[str]:
        found = set(self._files.names(folder))
        for path, edit in self._edits.items():
            if str(PurePosixPath(path).parent) == folder:
                (found.discard if edit.after is None else found.add)(PurePosixPath(path).name)
        return sorted(found)

    def link(self, path: str) -> str | None:
        edit = self._edits.get(path)
        if edit is None:
            return self._files.link(path)
        return edit.after.target if isinstance(edit.after, Link) else None

    def text(self, path: str) -> str | None:
        """Whatever the guest's encoding, what is not touched comes out as it went in."""
        content = self.read(path)
        return None if content is None else content.decode("utf-8", "surrogateescape")

    def write(self, path: str, content: bytes | str, reason: str, mode: int = 0o644) -> None:
        """Through a link, as an editor would; a link that leads nowhere is replaced by a file."""
        encoded = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        before: Content = self.read(path)
        if before is None and (target := self.link(path)) is not None:
            before = Link(target)
        self._note(FileEdit(path, before, encoded, reason, mode))

    def make_link(self, path: str, target: str, reason: str) -> None:
        """In place of what is there."""
        self._note(FileEdit(path, self._there(path), Link(target), reason))

    def remove(self, path: str, reason: str) -> None:
        self._note(FileEdit(path, self._there(path), None, reason))

    def warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def edits(self) -> list[FileEdit]:
        """What differs from what is there, in the order in which it was first written."""
        return [edit for edit in self._edits.values() if edit.before != edit.after]

    def _there(self, path: str) -> Content:
        target = self.link(path)
        return Link(target) if target is not None else self.read(path)

    def _note(self, edit: FileEdit) -> None:
        former = self._edits.get(edit.path)
        if former is None:
            self._edits[edit.path] = edit
            return
        reasons = dict.fromkeys([*former.reason.split("; "), edit.reason])
        self._edits[edit.path] = replace(former, after=edit.after, reason="; ".join(reasons))
