"""The guest's own name: kept, or another one that is wished for."""

from __future__ import annotations

import re

from wavelift.guest.draft import Draft

_FILE = "/etc/hostname"
_RED_HAT = "/etc/sysconfig/network"
_SUSE = "/etc/HOSTNAME"
_HOSTS = "/etc/hosts"
_REASON = "hostname as wished for"


def plan(name: str, draft: Draft) -> None:
    old = (draft.text(_FILE) or "").strip()
    draft.write(_FILE, f"{name}\n", _REASON)
    if draft.link(_SUSE) is None and draft.text(_SUSE) is not None:
        draft.write(_SUSE, f"{name}\n", _REASON)
    if (text := draft.text(_RED_HAT)) is not None and re.search(r"^HOSTNAME=", text, re.M):
        draft.write(_RED_HAT, re.sub(r"^HOSTNAME=.*$", f"HOSTNAME={name}", text, flags=re.M), _REASON)
    if (hosts := draft.text(_HOSTS)) is not None and old and old != name:
        draft.write(_HOSTS, _renamed(hosts, old, name), _REASON)


def _renamed(hosts: str, old: str, new: str) -> str:
    """On the lines of this machine's own addresses."""
    word = re.compile(rf"(?<![\w.-]){re.escape(old)}(?![\w-])")
    own = re.compile(r"^\s*(127\.|::1\s)")
    return "".join(word.sub(new, line) if own.match(line) else line for line in hosts.splitlines(keepends=True))
