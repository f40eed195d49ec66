"""/etc/crypttab: encrypted volumes by UUID where it names them by what the move changes. See crypttab(5)."""

from __future__ import annotations

import re

from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed
from wavelift.guest.evidence import REMEDY, Check
from wavelift.guest.facts import Devices, Guest
from wavelift.guest.files import GuestFiles, text_of
from wavelift.guest.rewritten import Rewritten
from wavelift.manifest.wishes import Wishes

CRYPTTAB = "/etc/crypttab"
_LINE = re.compile(r"^(?P<lead>\s*[^\s#]\S*\s+)(?P<device>\S+)", re.M)


def plan(guest: Guest, wishes: Wishes, draft: Draft) -> None:
    text = draft.text(CRYPTTAB)
    if text is None:
        return
    changed = rewrite_crypttab(text, guest.devices)
    draft.write(CRYPTTAB, changed.text, "encrypted volumes by UUID")
    for warning in changed.warnings:
        draft.warn(warning)


def check(guest: Guest, wishes: Wishes, files: GuestFiles) -> list[Check]:
    text = text_of(files, CRYPTTAB)
    named = [match["device"] for match in _LINE.finditer(text)]
    wrong = [device for device in named if guest.devices.uuid(device)]
    if wrong:
        raise PostconditionFailed(f"{CRYPTTAB} still names by device: {', '.join(wrong)}", REMEDY)
    return [Check("crypttab by UUID", ", ".join(named))] if named else []


def rewrite_crypttab(text: str, devices: Devices) -> Rewritten:
    warnings = []

    def by_uuid(match: re.Match[str]) -> str:
        device = match["device"]
        if uuid := devices.uuid(device):
            return f"{match['lead']}UUID={uuid}"
        if Devices.changes(device):
            warnings.append(f"{CRYPTTAB}: {device} is on none of the given disks and stays as it is")
        return match[0]

    return Rewritten(_LINE.sub(by_uuid, text), tuple(warnings))
