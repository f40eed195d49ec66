"""What a preparation found, changed and shows."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from wavelift.guest.evidence import Check
from wavelift.guest.files import Content, FileEdit, Link
from wavelift.guest.journal import is_journal

# A text that differs in more is shown by its digests.
_MAX_DIFF = 16384


@dataclass(frozen=True)
class Change:
    """A file of the guest that was changed: digests, and of a text the lines that changed."""

    path: str
    reason: str
    before: str | None
    after: str | None
    diff: str = ""


@dataclass(frozen=True)
class Report:
    """`checks` show that the guest is prepared; there are none of what is only planned. Windows has no `kernels`."""

    os: str
    firmware: str
    kernels: list[str]
    changes: list[Change]
    checks: list[Check]
    warnings: list[str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def changes(edits: Iterable[FileEdit]) -> list[Change]:
    return [Change(edit.path, edit.reason, digest(edit.before), digest(edit.after), _shown(edit)) for edit in edits]


def _shown(edit: FileEdit) -> str:
    """Nothing of the journal, which has what stood around the lines that changed."""
    return "" if is_journal(edit.path) else diff(edit.before, edit.after)


def digest(content: Content) -> str | None:
    if isinstance(content, Link):
        return f"link:{content.target}"
    return None if content is None else f"sha256:{hashlib.sha256(content).hexdigest()}"


def diff(before: Content, after: Content) -> str:
    """The lines that changed and no others: what stands around them may be secret. Empty where it is no text."""
    if isinstance(before, Link) or isinstance(after, Link):
        return ""
    try:
        old, new = ((content or b"").decode("utf-8").splitlines() for content in (before, after))
    except UnicodeDecodeError:
        return ""
    if any("\0" in line for line in (*old, *new)):
        return ""
    lines = [line for line in difflib.unified_diff(old, new, n=0, lineterm="") if not line.startswith(("---", "+++"))]
    text = "\n".join(lines)
    return text if len(text) <= _MAX_DIFF else ""
