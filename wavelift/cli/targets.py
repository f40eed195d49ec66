"""TARGET of the copy command on this machine: found fit before anything is written, and held until the copy ends."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from blake3 import blake3

from wavelift.blocks.blockmap import DiskMap
from wavelift.blocks.compare import differences
from wavelift.blocks.compress import Compression
from wavelift.blocks.descriptor import DEFAULT_PACK_BYTES
from wavelift.blocks.errors import BlockError, VolumeTooSmall
from wavelift.blocks.files import sync_folder
from wavelift.blocks.pace import PacedSink
from wavelift.blocks.readback import ReadBack
from wavelift.blocks.sink import Sink
from wavelift.blocks.sink_local import LocalSink
from wavelift.blocks.throttle import Flow
from wavelift.cli import sample
from wavelift.cli.copystate import Modified
from wavelift.cli.footing import Attempt, Ranges, unlike
from wavelift.cli.overlap import overlap
from wavelift.cli.report import Watch
from wavelift.cli.tables import Watched
from wavelift.sources.in_use import loops_on

_FS_IOC_GETVERSION = 0x80087601
_NO_GENERATION = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_SEES_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class TargetRefused(BlockError):
    """A target that must not, or cannot, be written; nothing was."""

    default_code = "target_refused"


class Destination(Protocol):
    """Where a copy goes. `text` and `id` name it, `migration` is what its packs are of; `modified` changes when it is
    written, where that can be told; `left` is the same for a copy that ended before its end. `newest` is the highest
    generation there that another copy may have made."""

    compression: Compression
    pack_bytes: int

    @property
    def text(self) -> str: ...

    @property
    def id(self) -> str: ...

    @property
    def migration(self) -> str: ...

    @property
    def exists(self) -> bool: ...

    @property
    def modified(self) -> Modified: ...

    @property
    def left(self) -> int | None: ...

    @property
    def newest(self) -> int: ...

    def refuse_source(self, source: Path) -> None:
        """Raises `TargetRefused` when they share bytes."""

    def require_verifiable(self, how: str) -> None: ...

    def held(self, size: int, ours: Callable[[str], bool]) -> AbstractContextManager[int]:
        """Gives how many bytes of what was there lie behind those that are written."""

    def sinks(self, generation: int, flow: Callable[[], Flow]) -> Callable[[], Sink]:
        """What opens a worker's sink; `flow` makes its way through the limits."""

    def unlike(self, attempt: Attempt, watch: Watch) -> Ranges | None:
        """Where it may not be the attempt's base any more, beside what was acknowledged; None when it does not hold
        that either."""

    def keep(self, found: DiskMap, result: dict[str, Any], attempt: Attempt) -> None:
        """Once all of it was sent: make it count, where that takes more."""

    def differing(
        self, disk: str, generation: int, found: DiskMap, how: str, watch: Watch
    ) -> list[tuple[int, int]]: ...

    def discard(self) -> None:
        """Remove what the copy made, if it made anything."""


class LocalTarget:
    """A file or a block device."""

    # Packs go no further than this process.
    compression = Compression.NEVER
    pack_bytes = DEFAULT_PACK_BYTES

    def __init__(self, path: Path) -> None:
        self.path = path
        self._created = False

    @property
    def text(self) -> str:
        return str(self.path.absolute())

    @property
    def migration(self) -> str:
        """Of this target alone: a live guest keeps the tracks of each migration apart."""
        return f"copy-{blake3(self.text.encode(errors='surrogateescape')).hexdigest()[:16]}"

    @property
    def exists(self) -> bool:
        return self.path.exists()

    @property
    def id(self) -> str:
        """Names this very file or device: another file under the same name is another target."""
        # The number of a file system may change with a restart of the machine, and so may that of a device.
        mark = "" if self.path.is_block_device() else _mark(self.path)
        return "local-" + blake3(os.fsencode(self.path.resolve()) + b"\0" + mark.encode()).hexdigest()[:32]

    @property
    def modified(self) -> int | None:
        """Changes with each write to a file, in nanoseconds; None for a device, which does not tell."""
        info = self.path.stat()
        return info.st_mtime_ns if stat.S_ISREG(info.st_mode) else None

    @property
    def left(self) -> int | None:
        return self.modified

    @property
    def newest(self) -> int:
        return 0

    def refuse_source(self, source: Path) -> None:
        """Raises `TargetRefused` when source and target share bytes."""
        try:
            shared = overlap(source, self.path)
        except FileNotFoundError:
            return
        if shared:
            raise TargetRefused(
                f"The target {self.path} and the source {source} are the same, or one lies on the other.",
                "Name another target.",
            )

    @contextmanager
    def held(self, size: int, ours: Callable[[str], bool]) -> Iterator[int]:
        """Ready for `size` bytes, and kept from others. A file that is not there is made, with its size and no data.

        `ours` says of its id whether what it holds may go. Gives how much larger a file is. Raises `TargetRefused`,
        OSError.
        """
        with ExitStack() as stack:
            fd = self._open()
            stack.callback(os.close, fd)
            mode = os.fstat(fd).st_mode
            self._refuse_loops()
            if stat.S_ISREG(mode):
                self._lock(fd)
            elif not stat.S_ISBLK(mode):
                raise TargetRefused(
                    f"{self.path} is neither a regular file nor a block device.", "Name a file, a disk or a volume."
                )
            there = os.lseek(fd, 0, os.SEEK_END)
            if there and not ours(self.id):
                what = "is a block device" if stat.S_ISBLK(mode) else "is there already and not empty"
                raise TargetRefused(
                    f"The target {self.path} {what}.", "Give --overwrite if what it holds is of no use to anyone."
                )
            if there == 0 and stat.S_ISREG(mode):
                os.ftruncate(fd, size)
                os.fsync(fd)
                sync_folder(self.path.parent)
            elif there < size:
                larger = f"Make it large enough: truncate -s {size} {self.path}"
                raise TargetRefused(
                    f"The source has {size} bytes, and the target {self.path} has {there}.",
                    larger if stat.S_ISREG(mode) else "Name a device that is large enough.",
                    code=VolumeTooSmall.default_code,
                )
            yield max(0, there - size) if stat.S_ISREG(mode) else 0

    def sinks(self, generation: int, flow: Callable[[], Flow]) -> Callable[[], Sink]:
        return lambda: PacedSink(LocalSink(self.path), flow())

    def unlike(self, attempt: Attempt, watch: Watch) -> Ranges | None:
        """Read back where nothing else tells: after a kill nobody knows when it was last written."""
        if attempt.left is not None and attempt.left == self.modified:
            return []
        watch.step("reading back")
        return unlike(attempt, self.path, watch.check)

    def keep(self, found: DiskMap, result: dict[str, Any], attempt: Attempt) -> None:
        """What was written is there."""

    def require_verifiable(self, how: str) -> None:
        """What can be written can be read."""

    def differing(self, disk: str, generation: int, found: DiskMap, how: str, watch: Watch) -> Ranges:
        """What lies there, past the page cache, and is not what the map says."""
        if how == "sample":
            return sample.differing(found, self.path, watch)
        with ReadBack(self.path, found.size, check=watch.check) as lies:
            return list(differences(found, Watched(lies, watch), watch.check))

    def discard(self) -> None:
        """Remove the file if this copy made it: half a copy must not look like a disk."""
        if self._created:
            self.path.unlink(missing_ok=True)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            if self.path.is_block_device():
                # Refused by the kernel when it, or a part of it, is mounted or claimed by something built on it.
                return os.open(self.path, flags | os.O_EXCL)
            if self.path.exists():
                return os.open(self.path, flags | os.O_NONBLOCK)
            if self.path.is_symlink():
                raise TargetRefused(
                    f"The target {self.path} is a link to {self.path.readlink()}, which is not there.",
                    "Make what it leads to, or name another target.",
                )
            self._refuse_new_device()
            fd = os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise TargetRefused(
                    f"The target {self.path} is in use: mounted, or something is built on it.",
                    "Unmount it, or name another device (lsblk shows what uses which).",
                ) from None
            raise TargetRefused(
                f"The target {self.path} cannot be written: {error.strerror}.", "Check the path and its rights."
            ) from None
        self._created = True
        return fd

    def _refuse_new_device(self) -> None:
        """A file in /dev is in the machine's memory, and its name one that somebody mistyped."""
        folder = self.path.parent.resolve()
        if folder.is_relative_to("/dev") and not folder.is_relative_to("/dev/shm"):
            raise TargetRefused(f"There is no device {self.path}.", "Check its name (lsblk lists those there are).")

    def _refuse_loops(self) -> None:
        loops = loops_on(self.path)
        if loops:
            raise TargetRefused(
                f"The target {self.path} is in use as {', '.join(loops)}.", "Name that device, or detach it first."
            )

    def _lock(self, fd: int) -> None:
        try:
            # The kind of lock that QEMU takes on its images: finds a machine that has this file, keeps others off it.
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise TargetRefused(
                    f"The target {self.path} is in use by another program (a machine, or another copy).",
                    "Stop it, or name another target.",
                ) from None
            if error.errno not in _SEES_NO_LOCKS:
                raise


def _mark(path: Path) -> str:
    """Inode, and its generation where the file system has that: the number alone is soon used again."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        inode = os.fstat(fd).st_ino
        try:
            generation = fcntl.ioctl(fd, _FS_IOC_GETVERSION, bytes(8)).hex()
        except OSError as error:
            if error.errno not in _NO_GENERATION:
                raise
            generation = ""
    finally:
        os.close(fd)
    return f"{inode}:{generation}"
