"""One instant of a live guest's disks, kept by QEMU for as long as it is read (fleecing).

Before the guest overwrites something, QEMU copies what was there to a scratch file; an overlay over the disk with
that file on top shows the disk as it was, and QEMU's NBD server hands it out. The scratch files have no name and
the server's socket lies in a private folder, so a killed agent leaves no file behind; what it leaves in QEMU is
swept by the next one. A full scratch file would make the guest's own writes fail: the moment is given up before.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import tempfile
import threading
import uuid
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wavelift.blocks.errors import SourceError
from wavelift.sources.base import Consistency
from wavelift.sources.nbd import NbdPointInTime
from wavelift.sources.qemu_disks import GRANULARITY, MOMENT, PREFIX, GuestDisk, finish_job, running, sweep
from wavelift.sources.qemu_freeze import Freeze, frozen
from wavelift.sources.qmp import GuestGone, Qmp, QmpError

log = logging.getLogger(__name__)

_WATCH_SECONDS = 0.25
_MARGIN = 1 << 30


@dataclass(frozen=True)
class Wanted:
    """`since`: the bitmap that tells what changed, None for everything; `begun`: the one of an attempt that was cut
    short, if any; `following`: the one that begins now."""

    disk: GuestDisk
    since: str | None
    begun: str | None
    following: str


class Moment:
    """Raises `SourceError` when QEMU cannot make one, and leaves nothing in it then."""

    def __init__(self, qmp: Qmp, monitor: Path, scratch: Path, wanted: Sequence[Wanted], agent: Path | None) -> None:
        self._qmp = qmp
        self._scratch = scratch
        self._wanted = wanted
        name = f"{MOMENT}{uuid.uuid4().hex[:12]}"
        # Copies of the bitmaps as they were at the instant.
        self._seen, self._seen_begun = f"{name}-base", f"{name}-begun"
        self._lost: str | None = None
        self._ending = threading.Event()
        with ExitStack() as undo:
            scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._folder = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            undo.callback(os.close, self._folder)
            # Through the open folder: the path of a socket may have 107 bytes only.
            self._socket = f"/proc/self/fd/{self._folder}/{hashlib.sha256(str(monitor).encode()).hexdigest()[:16]}.nbd"
            undo.callback(lambda: Path(self._socket).unlink(missing_ok=True))
            undo.callback(self._leave)
            for index, one in enumerate(wanted):
                self._overlay(index, one.disk)
            self._serve()
            self.consistency = self._take(agent)
            for index, one in enumerate(wanted):
                self._export(index, one)
            self._undo = undo.pop_all()
        self._watcher = threading.Thread(target=self._watch, name="scratch", daemon=True)
        self._watcher.start()

    def connect(self, index: int) -> NbdPointInTime:
        since = self._wanted[index].since
        return NbdPointInTime(self._uri(index), self._seen, tracked=since is not None, consistency=self.consistency)

    def connect_begun(self, index: int) -> NbdPointInTime | None:
        """With what was written since the attempt that was cut short as dirty; None when nothing tells."""
        if self._wanted[index].begun is None:
            return None
        return NbdPointInTime(self._uri(index), self._seen_begun, tracked=True, consistency=self.consistency)

    def check(self) -> None:
        """Raises `SourceError` when what was read since is no longer of one instant."""
        if self._lost is None and not all(running(self._qmp, _job(index)) for index in range(len(self._wanted))):
            self._lost = "QEMU ended the job that keeps it"
        if self._lost is not None:
            raise SourceError(
                f"The point in time of the guest was lost: {self._lost}.",
                "The guest runs on. Start the cycle again, with more room for the scratch file.",
                code="moment_lost",
            )

    def close(self) -> None:
        self._ending.set()
        self._watcher.join()
        self._undo.close()

    def _overlay(self, index: int, disk: GuestDisk) -> None:
        file, overlay = f"{PREFIX}a-file{index}", _overlay(index)
        with tempfile.TemporaryFile(dir=self._scratch) as scratch:
            added = self._qmp.execute("add-fd", {"opaque": f"{PREFIX}scratch"}, [scratch.fileno()])
        name = f"/dev/fdset/{added['fdset-id']}"
        self._qmp.execute("blockdev-add", {"driver": "file", "node-name": file, "filename": name})
        create = {"driver": "qcow2", "file": file, "size": disk.size}
        self._qmp.execute("blockdev-create", {"job-id": f"{PREFIX}create{index}", "options": create})
        finish_job(self._qmp, f"{PREFIX}create{index}")
        node = {"driver": "qcow2", "node-name": overlay, "file": file, "backing": disk.node}
        self._qmp.execute("blockdev-add", node)

    def _serve(self) -> None:
        Path(self._socket).unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(self._socket)
            listening.listen(16)
            self._qmp.execute("getfd", {"fdname": f"{PREFIX}nbd"}, [listening.fileno()])
        try:
            self._qmp.execute("nbd-server-start", {"addr": {"type": "fd", "data": {"str": f"{PREFIX}nbd"}}})
        except QmpError as error:
            self._qmp.attempt("closefd", {"fdname": f"{PREFIX}nbd"})
            raise SourceError(
                f"{error.message} QEMU has one NBD server, and somebody else may be using it.",
                "Wait until the other backup or migration of this guest has ended.",
                code="nbd_server_busy",
            ) from None

    def _take(self, agent: Path | None) -> Consistency:
        """The instant itself. The backups come first: from then on QEMU holds the guest's writes back until all
        of the transaction is done, so bitmaps and disks are of one moment."""
        actions: list[dict[str, Any]] = []
        for index, one in enumerate(self._wanted):
            backup = {"job-id": _job(index), "device": one.disk.node, "target": _overlay(index), "sync": "none"}
            actions.append({"type": "blockdev-backup", "data": backup})
        for one in self._wanted:
            node, add = one.disk.node, "block-dirty-bitmap-add"
            begin = {"name": one.following, "persistent": one.disk.persistent, "granularity": GRANULARITY}
            actions.append({"type": add, "data": {"node": node, **begin}})
            for seen, bitmap in self._copies(one):
                copy = {"name": seen, "granularity": GRANULARITY, "disabled": True}
                actions.append({"type": add, "data": {"node": node, **copy}})
                merge = {"node": node, "target": seen, "bitmaps": [bitmap]}
                actions.append({"type": "block-dirty-bitmap-merge", "data": merge})
        with nullcontext(Freeze(held=False)) if agent is None else frozen(agent) as freeze:
            self._qmp.execute("transaction", {"actions": actions})
        return Consistency.FROZEN if freeze.held else Consistency.CRASH

    def _export(self, index: int, one: Wanted) -> None:
        export: dict[str, Any] = {"type": "nbd", "id": f"{PREFIX}export{index}", "node-name": _overlay(index)}
        export |= {"name": f"disk{index}", "writable": False}
        if copies := self._copies(one):
            export["bitmaps"] = [seen for seen, _ in copies]
        self._qmp.execute("block-export-add", export)

    def _copies(self, one: Wanted) -> list[tuple[str, str]]:
        """(its name, what it is a copy of)."""
        named = ((self._seen, one.since), (self._seen_begun, one.begun))
        return [(seen, bitmap) for seen, bitmap in named if bitmap is not None]

    def _uri(self, index: int) -> str:
        return f"nbd+unix:///disk{index}?socket={self._socket}"

    def _watch(self) -> None:
        while not self._ending.wait(_WATCH_SECONDS):
            found = os.fstatvfs(self._folder)
            left, whole = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
            if left < min(_MARGIN, whole // 8):
                self._lost = f"only {left} bytes are left for the scratch file in {self._scratch}"
                self._leave()
                return

    def _leave(self) -> None:
        try:
            sweep(self._qmp)
        except GuestGone as error:
            log.warning("nothing to take down: %s", error.message)


def _overlay(index: int) -> str:
    return f"{PREFIX}b-overlay{index}"


def _job(index: int) -> str:
    return f"{PREFIX}keep{index}"
