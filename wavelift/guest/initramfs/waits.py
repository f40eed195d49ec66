"""What an initramfs of dracut made for its own machine waits for: disks by names that the move changes.

Files of /etc/cmdline.d stand for kernel arguments; scripts devexists-*.sh hold up the boot until a device is there.
"""

from __future__ import annotations

import re

from wavelift.guest.facts import Devices
from wavelift.guest.initramfs.image import Initramfs, Tool

_DEVICE = re.compile(r"/dev/[\w./:+-]+")
_ARGUMENT = re.compile(r"(?<![\w.])(?P<key>root|resume)=(?P<device>/dev/[\w./:+-]+)")
_WAITS = re.compile(r"(^|/)hooks/initqueue/finished/devexists-[^/]*\.sh$")
_ARGUMENTS = re.compile(r"^etc/cmdline\.d/[^/]+\.conf$")
NOTHING = b"# The device that was waited for here has another name now.\n"


def rewritten(initramfs: Initramfs, devices: Devices) -> dict[str, bytes]:
    """The files, by path, as they have to be."""
    if initramfs.tool is not Tool.DRACUT:
        return {}
    found = {}
    for path, entry in initramfs.files.items():
        text = entry.content.decode("utf-8", "surrogateescape") if _WAITS.search(path) or _ARGUMENTS.match(path) else ""
        if _ARGUMENTS.match(path):
            new = _ARGUMENT.sub(lambda match: _by_uuid(match, devices), text)
            if new != text:
                found[path] = new.encode("utf-8", "surrogateescape")
        elif any(Devices.changes(name) for name in _DEVICE.findall(text)):
            found[path] = NOTHING
    return found


def _by_uuid(match: re.Match[str], devices: Devices) -> str:
    uuid = devices.uuid(match["device"])
    return f"{match['key']}=UUID={uuid}" if uuid else match[0]
