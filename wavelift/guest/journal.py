"""What a preparation changed, kept in the guest itself, from which it can be taken back.

One JSON file per preparation, prepare-N.json, N from 1, in /var/lib/wavelift or on Windows in /ProgramData/Wavelift,
written before anything else is changed: {"version": 1, "files": [{"path", "mode", "before", "after", "reason"}]}.
`after` and `before` are null (nothing there), {"link": target}, or for a file {"sha256", "bytes"}; `before` of a file
also has "start", the number of bytes that it begins with of what it became, and the rest of its content as "rest",
compressed by zlib, in base64.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Sequence
from typing import Any

from wavelift.guest.errors import ChangedSince, NothingToUndo
from wavelift.guest.files import Content, FileEdit, GuestFiles, Link

_LINUX, _WINDOWS = "/var/lib/wavelift", "/ProgramData/Wavelift"
_NAME = re.compile(r"^prepare-(\d+)\.json$")
_VERSION = 1


def folder_on(kind: str) -> str:
    """Of a system whose root is a file system of this kind."""
    return _WINDOWS if kind == "ntfs" else _LINUX


def is_journal(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return folder.lower() in (_LINUX, _WINDOWS.lower()) and _NAME.match(name) is not None


def journalled(edits: Sequence[FileEdit], files: GuestFiles, folder: str = _LINUX) -> list[FileEdit]:
    """The edits, and before them the one that writes them down. `folder`: as the guest has it."""
    if not edits:
        return []
    number = max(_numbers(files, folder), default=0) + 1
    about = {"version": _VERSION, "files": [_entry(edit) for edit in edits]}
    written = json.dumps(about, indent=1).encode()
    return [FileEdit(f"{folder}/prepare-{number}.json", None, written, "what was changed, to be undone", 0o600), *edits]


def undone(files: GuestFiles, folder: str = _LINUX) -> list[FileEdit]:
    """The edits that take the last preparation back; the last one takes its journal away.

    Files that were not reached yet when it was cut short stay as they are. Raises `NothingToUndo`, `ChangedSince`.
    """
    numbers = _numbers(files, folder)
    if not numbers:
        raise NothingToUndo(
            f"there is no journal of a preparation in {folder}", "only what Wavelift prepared can be undone"
        )
    path = f"{folder}/prepare-{max(numbers)}.json"
    journal = files.read(path)
    if journal is None:
        raise NothingToUndo(f"{path} is no file", "make a new clone instead")
    edits, changed = [], []
    for entry in reversed(_entries(path, journal)):
        there = _there(files, entry["path"])
        as_left = [content for content in there if _described(content) == entry["after"]]
        if as_left:
            edits.append(FileEdit(entry["path"], as_left[0], _former(entry, as_left[0]), "taken back", entry["mode"]))
        elif _plain(entry["before"]) not in [_described(content) for content in there]:
            changed.append(entry["path"])
    if changed:
        raise ChangedSince(
            f"changed since they were prepared: {', '.join(changed)}",
            "the machine has run or somebody has edited them; make a new clone instead",
        )
    return [*edits, FileEdit(path, journal, None, "taken back")]


def _numbers(files: GuestFiles, folder: str) -> list[int]:
    return [int(match[1]) for name in files.names(folder) if (match := _NAME.match(name))]


def _entry(edit: FileEdit) -> dict[str, Any]:
    before = _described(edit.before)
    if isinstance(edit.before, bytes) and before is not None:
        after = edit.after if isinstance(edit.after, bytes) else b""
        start = _common(edit.before, after)
        rest = base64.b64encode(zlib.compress(edit.before[start:], 9)).decode()
        before = {**before, "start": start, "rest": rest}
    return {
        "path": edit.path,
        "mode": edit.mode,
        "reason": edit.reason,
        "before": before,
        "after": _described(edit.after),
    }


def _common(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    if other.startswith(one):
        return len(one)
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def _described(content: Content) -> dict[str, Any] | None:
    if content is None:
        return None
    if isinstance(content, Link):
        return {"link": content.target}
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _plain(before: dict[str, Any] | None) -> dict[str, Any] | None:
    """As `_described` has it."""
    return None if before is None else {key: value for key, value in before.items() if key not in ("start", "rest")}


def _there(files: GuestFiles, path: str) -> list[Content]:
    """A link is itself, and what was written through it."""
    target = files.link(path)
    content = files.read(path)
    return [content] if target is None else [Link(target), content]


def _former(entry: dict[str, Any], now: Content) -> Content:
    before = entry["before"]
    if before is None:
        return None
    if "link" in before:
        return Link(str(before["link"]))
    start = now[: before["start"]] if isinstance(now, bytes) else b""
    content = start + zlib.decompress(base64.b64decode(before["rest"]))
    if _described(content) != _plain(before):
        raise ChangedSince(f"the journal does not have what {entry['path']} was", "make a new clone instead")
    return content


def _entries(path: str, journal: bytes) -> list[dict[str, Any]]:
    try:
        about = json.loads(journal)
        if about["version"] != _VERSION:
            raise ValueError(f"version {about['version']}")
        return [{key: entry[key] for key in ("path", "mode", "before", "after")} for entry in about["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise NothingToUndo(f"{path} cannot be read: {error!r}", "make a new clone instead") from None
