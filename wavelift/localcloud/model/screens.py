"""What an instance shows: its screen, and what its serial console said."""

import re
import threading
import time
from pathlib import Path

from wavelift.localcloud.entities import Instance
from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.model.context import Context, find, instance_lock
from wavelift.localcloud.model.disks import wrong_instance_status
from wavelift.localcloud.runtimes.processes import alive
from wavelift.localcloud.states import InstanceStatus

CONSOLE_LIMIT = 64 * 1024
SCREENSHOT_INTERVAL = 10.0
# Terminal control: sequences, titles, and single characters but tab and line feed.
_SYMBOLS = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.|[\x00-\x08\x0b-\x1f\x7f]")


class Screens:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._guard = threading.Lock()
        self._taken: dict[str, float] = {}

    def console(self, identifier: str, plain: bool) -> tuple[bytes, float]:
        """The end of what the serial console showed, and when it last changed."""
        with self._context.store.transaction() as tx:
            find(tx, Instance, identifier)
        path = self._context.folders.console(identifier)
        if not path.exists():
            return b"", 0.0
        shown = _tail(path, CONSOLE_LIMIT)
        return _SYMBOLS.sub(b"", shown) if plain else shown, path.stat().st_mtime

    def screenshot(self, identifier: str, wake: bool) -> bytes:
        with self._context.locks.hold(instance_lock(identifier)):
            with self._context.store.transaction() as tx:
                instance = find(tx, Instance, identifier)
            if instance.status is not InstanceStatus.RUNNING or not alive(instance.pid, instance.ticks):
                raise wrong_instance_status(instance)
            self._throttle(identifier)
            picture = self._context.runtime(instance).screenshot(instance, wake)
        if picture is None:
            raise ApiError("OperationDenied", "A host instance has no screen.")
        return picture

    def _throttle(self, identifier: str) -> None:
        now = time.monotonic()
        with self._guard:
            self._taken = {each: then for each, then in self._taken.items() if now - then < SCREENSHOT_INTERVAL}
            if identifier in self._taken:
                raise ApiError("Throttling", f"One screenshot in {SCREENSHOT_INTERVAL:.0f} seconds per instance.")
            self._taken[identifier] = now


def _tail(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - limit))
        return file.read()
