"""TARGET of the restore command: a file or a block device, as for a copy, or an NBD export."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from blake3 import blake3

from wavelift.blocks import sample
from wavelift.blocks.blockmap import DiskMap
from wavelift.blocks.compare import Tables, differences
from wavelift.blocks.digest import BLOCK
from wavelift.blocks.errors import VolumeTooSmall
from wavelift.blocks.files import sync_folder
from wavelift.blocks.readback import ReadBack
from wavelift.blocks.volume import VolumeWriter, open_direct
from wavelift.cli.footing import Ranges
from wavelift.cli.report import Watch
from wavelift.cli.sample import DATA, ZEROES
from wavelift.cli.tables import Disk, Watched
from wavelift.cli.targets import LocalTarget, TargetRefused
from wavelift.hydrate.hydrate import Writer
from wavelift.sources.nbd import binding

# A new file has this at the end of its name until it is whole.
INCOMPLETE = ".incomplete"
_NBD = ("nbd://", "nbds://", "nbd+unix://", "nbds+unix://")
_ZEROES = memoryview(bytes(1 << 20))


class RestoreTarget(Protocol):
    """`id` names this very target; `zeroed` is whether it holds zeroes only. What is said of `held` is needed for all
    else."""

    zeroed: bool

    @property
    def text(self) -> str: ...

    @property
    def id(self) -> str: ...

    @property
    def exists(self) -> bool: ...

    def held(self, size: int, ours: Callable[[str], bool]) -> AbstractContextManager[int]:
        """Ready for `size` bytes; `ours` says of its id whether what it holds may go. Gives how many bytes of what was
        there lie behind. Raises `TargetRefused`, OSError."""

    def writing(self) -> AbstractContextManager[Writer]: ...

    def tables(self, size: int, stack: ExitStack, watch: Watch) -> Tables:
        """What it holds."""

    def differing(self, found: DiskMap, how: str, watch: Watch) -> Ranges:
        """Where what it holds is not what the map says."""

    def keep(self) -> None:
        """It holds what it should, as far as that could be had."""

    def discard(self) -> None:
        """Remove what was made, if anything was."""


def target_for(text: str) -> RestoreTarget:
    """Raises `TargetRefused`."""
    if text.startswith(_NBD):
        return ExportTarget(text)
    if "://" in text or text.startswith(("folder:", "offline:", "raw:", "qcow2:", "qmp:")) or text.endswith("/"):
        raise TargetRefused(
            f"{text} is no target of a restore: that is a file, a block device or an NBD export.",
            "Write the path alone, ./ before a name that begins like that, or nbd://HOST/EXPORT.",
        )
    return FileTarget(Path(text))


class FileTarget:
    """A file that is not there yet is made under another name, and renamed once it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._new = not path.exists() and not path.is_symlink()
        self._local = LocalTarget(path.with_name(path.name + INCOMPLETE) if self._new else path)
        self.zeroed = False

    @property
    def text(self) -> str:
        return str(self._path.absolute())

    @property
    def id(self) -> str:
        return self._local.id

    @property
    def exists(self) -> bool:
        return self._local.exists

    @contextmanager
    def held(self, size: int, ours: Callable[[str], bool]) -> Iterator[int]:
        path = self._local.path
        self.zeroed = not path.exists() or (path.is_file() and path.stat().st_size == 0)
        with self._local.held(size, ours) as behind:
            yield behind

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        path = self._local.path
        with ExitStack() as stack:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            direct = open_direct(path)
            if direct is not None:
                stack.callback(os.close, direct)
            yield VolumeWriter(str(path), os.lseek(fd, 0, os.SEEK_END), fd, direct)
            os.fdatasync(fd)

    def tables(self, size: int, stack: ExitStack, watch: Watch) -> Tables:
        return stack.enter_context(ReadBack(self._local.path, size, check=watch.check))

    def differing(self, found: DiskMap, how: str, watch: Watch) -> Ranges:
        return self._local.differing(found.disk, 0, found, how, watch)

    def keep(self) -> None:
        if not self._new:
            return
        if self._path.exists():
            raise TargetRefused(
                f"{self._path} has come to be while it was restored to {self._local.path}.", "Rename one of them."
            )
        self._local.path.rename(self._path)
        sync_folder(self._path.absolute().parent)

    def discard(self) -> None:
        self._local.discard()


class ExportTarget:
    """An NBD export, written over one connection."""

    zeroed = False
    exists = True

    def __init__(self, uri: str) -> None:
        self.text = uri
        self.id = f"nbd-{blake3(uri.encode()).hexdigest()[:32]}"
        self._handle: Any = None
        self._lock = threading.Lock()

    @contextmanager
    def held(self, size: int, ours: Callable[[str], bool]) -> Iterator[int]:
        handle = binding().NBD()
        try:
            handle.set_uri_allow_local_file(True)
            handle.connect_uri(self.text)
            there, read_only = int(handle.get_size()), bool(handle.is_read_only())
        except binding().Error as error:
            raise TargetRefused(
                f"The export {self.text} cannot be opened: {error.string}.",
                "Check that the server runs, and the export's name; nbdinfo shows the same.",
            ) from None
        try:
            if read_only:
                raise TargetRefused(f"The export {self.text} is read-only.", "Let its server take writes.")
            if there < size:
                raise TargetRefused(
                    f"The disk has {size} bytes, and the export {self.text} has {there}.",
                    "Name one that is large enough.",
                    code=VolumeTooSmall.default_code,
                )
            if not ours(self.id):
                raise TargetRefused(
                    f"What the export {self.text} holds would go.", "Give --overwrite if it is of no use to anyone."
                )
            self._handle = handle
            yield there - size
        finally:
            self._handle = None
            handle.shutdown()

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        try:
            yield self
            with self._lock:
                if self._handle.can_flush():
                    self._handle.flush()
        except binding().Error as error:
            raise TargetRefused(
                f"The export {self.text} cannot be written: {error.string}.",
                "Look at its server; with --state, the same command goes on where it was.",
                code="target_failed",
            ) from None

    def write(self, offset: int, data: memoryview) -> None:
        with self._lock:
            self._handle.pwrite(data, offset)

    def zero(self, offset: int, length: int) -> None:
        with self._lock:
            if self._handle.can_zero():
                self._handle.zero(length, offset)
                return
            for at in range(offset, offset + length, len(_ZEROES)):
                self._handle.pwrite(_ZEROES[: min(len(_ZEROES), offset + length - at)], at)

    def tables(self, size: int, stack: ExitStack, watch: Watch) -> Tables:
        return Disk(stack, self.text, watch, None).tables(size)

    def differing(self, found: DiskMap, how: str, watch: Watch) -> Ranges:
        with ExitStack() as stack:
            disk = Disk(stack, self.text, watch, None)
            if how == "full":
                return list(differences(found, Watched(disk.tables(found.size), watch), watch.check))
            point, buffer = disk.point, memoryview(bytearray(BLOCK))
            assert point is not None

            def read(offset: int, length: int) -> memoryview:
                point.readinto(offset, buffer[:length])
                return buffer[:length]

            seed = int.from_bytes(os.urandom(8), "little")
            drawn = sample.draw(found, DATA, ZEROES, seed, check=watch.check)
            wrong = sample.differing(drawn.blocks, found.size, read, watch.check)
            return [(start, min(found.size, start + BLOCK)) for start in wrong]

    def keep(self) -> None:
        """What was written is there."""

    def discard(self) -> None:
        """Nothing was made."""
