"""qcow2 images, read through a qemu-nbd of our own on a private socket.

Nothing is probed: the format is given, and an image that refers to any other file (backing file, external data
file) is refused, as what it names would be read with the agent's rights on the word of whoever wrote the image.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from wavelift.blocks.errors import SourceError
from wavelift.sources.base import Consistency, Extent
from wavelift.sources.nbd import BitmapUnavailable, NbdPointInTime, NbdSource

MAGIC = b"QFI\xfb"
_CLIENTS = 8
_START_LIMIT = 30.0
_STOP_LIMIT = 5.0
_FOLDER = "wavelift-qcow2-"
_EXTERNAL_DATA = 1 << 2


class Qcow2Source:
    """`bitmap` names a persistent dirty bitmap of the image; what it calls dirty is what changed since `token`."""

    kind = "qcow2"

    def __init__(self, path: Path, bitmap: str | None = None) -> None:
        self.path = path
        self.bitmap = bitmap

    def open(self, token: str | None = None) -> Qcow2PointInTime:
        """Raises `SourceError`: missing, no qcow2, encrypted, refers to other files, in use; `BitmapUnavailable`."""
        try:
            check_header(self.path)
        except OSError as error:
            raise SourceError(
                f"The image {self.path} cannot be opened: {error.strerror}.", "Check the path and its rights."
            ) from None
        return Qcow2PointInTime(self.path, self.bitmap, token)


class Qcow2PointInTime:
    """Whoever holds the image open for writing, as a running machine does, makes the open fail."""

    consistency = Consistency.OFFLINE

    def __init__(self, path: Path, bitmap: str | None, token: str | None) -> None:
        self._path = path
        self._server = _Server(path, bitmap if token is not None else None)
        try:
            self._nbd: NbdPointInTime = NbdSource(self._server.uri, bitmap, self.consistency).open(token)
        except BaseException:
            self._server.stop()
            raise
        self.size = self._nbd.size
        self.tracked = self._nbd.tracked
        self.notes = self._nbd.notes

    @property
    def token(self) -> str:
        info = self._path.stat()
        return f"qcow2:{info.st_dev}:{info.st_ino}:{self.size}:{info.st_mtime_ns}:{info.st_ctime_ns}"

    def extents(self) -> Iterator[Extent]:
        return self._nbd.extents()

    def readinto(self, offset: int, view: memoryview) -> None:
        self._nbd.readinto(offset, view)

    def close(self) -> None:
        self._nbd.close()
        self._server.stop()


def check_header(path: Path) -> None:
    """Raises `SourceError` for what is no self-contained qcow2 image of version 2 or 3, OSError."""
    with path.open("rb") as file:
        header = file.read(104).ljust(104, b"\0")
    magic, version, backing = struct.unpack_from(">4sIQ", header)
    (encryption,) = struct.unpack_from(">I", header, 32)
    features = struct.unpack_from(">Q", header, 72)[0] if version == 3 else 0
    if magic != MAGIC or version not in (2, 3):
        raise SourceError(f"{path} is no qcow2 image of version 2 or 3.", "Check which file it is.")
    if encryption:
        raise SourceError(
            f"{path} is encrypted.",
            "Decrypt it with qemu-img convert into an image of its own.",
            code="unsupported_source",
        )
    if backing or features & _EXTERNAL_DATA:
        what = "a backing file" if backing else "an external data file"
        raise SourceError(
            f"{path} has {what}; only an image that is whole in itself is read.",
            f"Make one of it, if you trust what it names: qemu-img convert -f qcow2 -O qcow2 {path} whole.qcow2",
            code="unsupported_source",
        )


def command(path: Path, bitmap: str | None, socket: Path, ready: Path) -> list[str]:
    """The server's command line; it ends with the thread that starts it."""
    # As an object, no character of the path has a meaning, and the format is not guessed.
    image = {
        "driver": "qcow2",
        "read-only": True,
        "backing": None,
        "file": {"driver": "file", "read-only": True, "filename": str(path.resolve())},
    }
    named = [] if bitmap is None else ["--bitmap", bitmap]
    return [
        *("setpriv", "--pdeathsig", "TERM"),
        *("qemu-nbd", "--read-only", "--persistent", "--shared", str(_CLIENTS)),
        *("--socket", str(socket), "--pid-file", str(ready), *named, "json:" + json.dumps(image)),
    ]


class _Server:
    """A running qemu-nbd; the thread that starts it must outlive it."""

    def __init__(self, path: Path, bitmap: str | None) -> None:
        _sweep()
        self._path, self._bitmap = path, bitmap
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
        socket, ready = self._folder / "socket", self._folder / "ready"
        self.uri = f"nbd+unix:///?socket={socket}"
        self._log = self._folder / "log"
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command(path, bitmap, socket, ready), stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
        except OSError as error:
            shutil.rmtree(self._folder)
            raise SourceError(
                f"{error.filename} cannot be started: {error.strerror}.",
                "Install qemu-utils.",
                code="missing_program",
            ) from None
        try:
            self._wait(ready)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder)

    def _wait(self, ready: Path) -> None:
        limit = time.monotonic() + _START_LIMIT
        while not ready.exists():
            if self._process.poll() is not None or time.monotonic() > limit:
                said = self._log.read_text(errors="replace").strip() or "nothing"
                if self._bitmap is not None and "itmap" in said:
                    raise BitmapUnavailable(
                        f"The bitmap {self._bitmap!r} of {self._path} cannot be used; qemu-nbd says: {said}",
                        "Check its name and flags with qemu-img info; changes can be found by a scan.",
                    )
                raise SourceError(
                    f"{self._path} cannot be served; qemu-nbd says: {said}",
                    "Stop the machine that uses the image, or check it: qemu-img check.",
                )
            time.sleep(0.005)


def _sweep() -> None:
    """Remove the folders of processes that were killed; their servers went with them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        owner = folder.name.removeprefix(_FOLDER).partition("-")[0]
        if not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)
