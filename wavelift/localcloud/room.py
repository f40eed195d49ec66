"""What the host has left. The volume believes that it has the room there was when it was made, so a write into it is
answered before the host found room for it: near the end, nothing is begun that takes more.
"""

import logging
import os
from pathlib import Path

from wavelift.localcloud.errors import ApiError

LOG = logging.getLogger(__name__)

MARGIN = 256 * 1024**2
TAKES_ROOM = frozenset(
    {
        "CopyImage",
        "CopySnapshot",
        "CreateDisk",
        "CreateImage",
        "CreateInstance",
        "CreateSnapshot",
        "ExportImage",
        "ImportImage",
        "ReplaceSystemDisk",
        "RunInstances",
        "StartInstance",
        "StartInstances",
    }
)


class Room:
    def __init__(self, state: Path) -> None:
        self._state = state
        self._short = False

    def check(self, action: str) -> None:
        if action in TAKES_ROOM and (free := self._free()) < MARGIN:
            raise ApiError("InternalError", f"{self._shortage(free)}: {action} is refused.")

    def look(self) -> None:
        """Says once that too little is left, and once that there is enough again."""
        free = self._free()
        if free < MARGIN and not self._short:
            LOG.error(
                "THE HOST IS ALMOST FULL. %s: what takes more is refused, and what instances write may be lost.",
                self._shortage(free),
            )
        elif free >= MARGIN and self._short:
            LOG.warning("There is room again for %s", self._state)
        self._short = free < MARGIN

    def _free(self) -> int:
        """Of the file system under the volume, not of the volume."""
        host = os.statvfs(self._state)
        return host.f_bavail * host.f_frsize

    def _shortage(self, free: int) -> str:
        mib = 1024**2
        return f"{free // mib} MiB are left on the host's disk at {self._state}, {MARGIN // mib} MiB are needed"
