"""SELinux labels of files that are written anew, from the guest's own policy, as restorecon would tell them.

Nothing is guessed: where a label cannot be told, the guest relabels itself at its next boot (/.autorelabel), which is
slow and restarts it, and always right. Files that were there keep their labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from wavelift.guest.files import FileEdit, GuestFiles, Link, text_of

CONFIG = "/etc/selinux/config"
AUTORELABEL = "/.autorelabel"
_SETTING = re.compile(r"^\s*(SELINUX|SELINUXTYPE)\s*=\s*(\S+?)\s*$", re.M)
_META = re.compile(r"[.^$?*+|\[({]")
# Repeated groups can take a matcher for ever, on a policy that somebody made for that.
_DANGEROUS = re.compile(r"\)[*+{]|\\[1-9]|\(\?")
_MOST_REPEATS = 8
_ESCAPED = re.compile(r"\\(.)")
_KINDS = {"--": "file", "-l": "link", "-d": "folder"}


@dataclass(frozen=True)
class Rule:
    """A line of file_contexts. `kind` is None for all; `label` None for <<none>>."""

    pattern: str
    kind: str | None
    label: str | None

    @property
    def exact(self) -> bool:
        return not _META.search(_ESCAPED.sub("", self.pattern))

    @property
    def stem(self) -> str:
        """What each path that matches begins with. A sign before ? or * may be missing, and so may all with |."""
        if "|" in re.sub(r"\([^()]*\)", "", self.pattern):
            return ""
        found = _META.search(self.pattern.replace("\\", "."))
        if found is None:
            return self.pattern
        return self.pattern[: found.start() - (found[0] in "?*{")].rstrip("\\") if found.start() else ""


def policy_type(files: GuestFiles) -> str | None:
    """Such as `targeted`; None where SELinux is off or has no policy."""
    settings = dict(_SETTING.findall((files.read(CONFIG) or b"").decode("utf-8", "replace")))
    kind: str = settings.get("SELINUXTYPE", "targeted")
    if settings.get("SELINUX") not in ("enforcing", "permissive") or "/" in kind:
        return None
    return kind if files.read(f"{_contexts(kind)}/file_contexts") is not None else None


def new_labels(edits: Sequence[FileEdit], files: GuestFiles) -> Mapping[str, str | None] | None:
    """The label by path of each file, link and folder that the edits make; None as a label: it cannot be told.

    None for a guest without SELinux.
    """
    kind = policy_type(files)
    if kind is None:
        return None
    rules = _rules(files, kind)
    found: dict[str, str | None] = {}
    for edit in edits:
        if edit.after is None or (isinstance(edit.before, bytes) and isinstance(edit.after, bytes)):
            continue
        for folder in reversed(PurePosixPath(edit.path).parents):
            if folder.name and folder.name not in files.names(str(folder.parent)):
                found[str(folder)] = _label(files, kind, rules, str(folder), "folder")
        what = "link" if isinstance(edit.after, Link) else "file"
        found[edit.path] = _label(files, kind, rules, edit.path, what)
    return found


def selinux_label(files: GuestFiles, path: str, kind: str = "file") -> str | None:
    """What the guest's policy says of a path: a `file`, `link` or `folder`. None where that cannot be told."""
    policy = policy_type(files)
    return _label(files, policy, _rules(files, policy), path, kind) if policy else None


def _label(files: GuestFiles, policy: str, rules: Sequence[Rule], path: str, kind: str) -> str | None:
    substituted = _substituted(files, policy, path)
    for rule in rules:
        if rule.kind not in (None, kind) or not substituted.startswith(rule.stem):
            continue
        if rule.exact:
            if _ESCAPED.sub(r"\1", rule.pattern) == substituted:
                return rule.label
            continue
        if _DANGEROUS.search(rule.pattern) or len(re.findall(r"[*+{]", rule.pattern)) > _MOST_REPEATS:
            return None
        try:
            if re.fullmatch(rule.pattern, substituted):
                return rule.label
        except re.error:
            return None
    return None


def _rules(files: GuestFiles, policy: str) -> list[Rule]:
    """The one that counts first: local ones before the policy's, exact ones before patterns, later before earlier."""
    read = [
        rule
        for name in ("", ".homedirs", ".local")
        for rule in _parsed(files, f"{_contexts(policy)}/file_contexts{name}")
    ]
    read.reverse()
    return sorted(read, key=lambda rule: not rule.exact)


def _parsed(files: GuestFiles, path: str) -> Iterator[Rule]:
    for line in text_of(files, path).splitlines():
        fields = line.split()
        if not fields or fields[0].startswith("#") or len(fields) not in (2, 3):
            continue
        if len(fields) == 3 and fields[1] not in _KINDS:
            continue
        kind = _KINDS[fields[1]] if len(fields) == 3 else None
        yield Rule(fields[0], kind, None if fields[-1] == "<<none>>" else fields[-1])


def _substituted(files: GuestFiles, policy: str, path: str) -> str:
    """Paths that the policy has under another name: local substitutions, then those of the distribution."""
    for name in ("subs", "subs_dist"):
        text = (files.read(f"{_contexts(policy)}/file_contexts.{name}") or b"").decode("utf-8", "surrogateescape")
        for line in text.splitlines():
            fields = line.split()
            if len(fields) != 2 or line.startswith("#"):
                continue
            if path == fields[0] or path.startswith(fields[0].rstrip("/") + "/"):
                path = fields[1] + path[len(fields[0].rstrip("/")) :]
                break
    return path


def _contexts(policy: str) -> str:
    return f"/etc/selinux/{policy}/contexts/files"
