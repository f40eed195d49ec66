"""Which source a text stands for: what `--disk` of the agent and SOURCE of the copy command take.

/dev/vg/data        a block device: a snapshot of a logical volume where there can be one, else the device
/images/web.raw     an image in a regular file: qcow2 when it begins like one, else raw
raw:PATH qcow2:PATH an image of just that format (a guest may write anything to the start of a raw disk)
nbd:// nbds:// nbd+unix:// nbds+unix://   an NBD export
qmp:SOCKET?node=NODE[&agent=SOCKET]   a disk of a live guest, by its monitor; its agent freezes
folder:DIR[@GENERATION]   a generation, the newest unless said, of an archive: in a folder, as well as in
offline:DIR[,DIR...]  oss://BUCKET/PREFIX  s3://BUCKET/PREFIX   (see wavelift/archive/opening.py)
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qsl

from wavelift.archive.keys import KeyOf
from wavelift.archive.opening import SCHEMES, parse_place
from wavelift.blocks.digest import SECTOR
from wavelift.blocks.errors import SourceError
from wavelift.sources.base import Consistency, PointInTime, Source
from wavelift.sources.device import DeviceSource, sector_size
from wavelift.sources.image import ImageSource
from wavelift.sources.lvm import LvmPointInTime, LvmSource, is_volume
from wavelift.sources.nbd import NbdSource
from wavelift.sources.packs import ArchiveSource
from wavelift.sources.qcow2 import MAGIC, Qcow2Source
from wavelift.sources.qemu import QemuDisk, QemuGuest
from wavelift.sources.together import Since

_NBD = ("nbd://", "nbds://", "nbd+unix://", "nbds+unix://")
_FOREIGN = {b"KDMV": "VMDK", b"conectix": "VHD", b"vhdxfile": "VHDX"}


class Guests:
    """Disks of one guest share its monitor, which has room for one. `scratch`: a private folder with space for what
    the guests overwrite while they are read."""

    def __init__(self, scratch: Path | None = None) -> None:
        self._scratch = scratch or Path.home() / ".cache/wavelift/scratch"
        self._known: dict[Path, QemuGuest] = {}

    def disk(self, text: str) -> QemuDisk:
        """Raises `SourceError` for another form than the one above."""
        path, _, query = text.removeprefix("qmp:").partition("?")
        given = dict(parse_qsl(query, keep_blank_values=True))
        node, agent = given.pop("node", ""), given.pop("agent", None)
        if not path or not node or given or agent == "":
            raise SourceError(
                f"{text!r} does not name a disk of a guest.",
                "Write qmp:SOCKET?node=NODE, and &agent=SOCKET to freeze.",
                code="unsupported_source",
            )
        channel = None if agent is None else Path(agent)
        guest = self._known.setdefault(Path(path), QemuGuest(Path(path), self._scratch, channel))
        if guest.agent != channel:
            raise SourceError(
                f"{text!r} names another agent socket than an earlier disk.",
                "Give all disks the same.",
                code="unsupported_source",
            )
        return QemuDisk(guest, node)


def source_for(text: str, bitmap: str | None = None, guests: Guests | None = None, key: KeyOf | None = None) -> Source:
    """The source, not opened yet: what a path is may change, or come, until then.

    `bitmap` names the dirty bitmap of an NBD export or qcow2 image; a guest's are Wavelift's own. `key` opens a
    sealed archive. Raises `SourceError`: a bitmap of what has none; `BadPlace`.
    """
    if text.startswith("qmp:"):
        if bitmap is not None:
            raise _no_bitmap(text)
        return (guests or Guests()).disk(text)
    if text.startswith(SCHEMES):
        if bitmap is not None:
            raise _no_bitmap(text)
        place = parse_place(text, generation=True)
        return ArchiveSource(lambda: place.open(key), place.generation)
    if text.startswith(_NBD):
        return NbdSource(text, bitmap)
    if text.startswith("qcow2:"):
        return Qcow2Source(Path(text.removeprefix("qcow2:")), bitmap)
    if text.startswith("raw:"):
        if bitmap is not None:
            raise _no_bitmap(text)
        return ImageSource(Path(text.removeprefix("raw:")))
    return PathSource(Path(text), bitmap)


class PathSource:
    """Whatever the path is at the time of its opening.

    The disks of a job are opened together: snapshots last and one right after the other, so that the moment at
    which the last was taken is that of all of them if nothing wrote meanwhile. What did not hold is labelled.
    """

    host = "this machine"

    def __init__(self, path: Path, bitmap: str | None = None) -> None:
        self.path = path
        self.bitmap = bitmap

    @property
    def kind(self) -> str:
        """An image's while nothing is there."""
        try:
            return self._pick().kind
        except (OSError, SourceError):
            return ImageSource.kind

    def open(self, token: str | None = None) -> PointInTime:
        """Raises `SourceError`: missing, or as the source that it turns out to be."""
        try:
            found = self._pick()
        except OSError as error:
            raise SourceError(
                f"{self.path} cannot be opened: {error.strerror}.", "Check the path and its rights."
            ) from None
        if self.bitmap is not None and not isinstance(found, Qcow2Source):
            raise _no_bitmap(str(self.path))
        return found.open(token)

    def open_together(self, disks: Sequence[tuple[Source, Since]]) -> list[PointInTime]:
        """Points in time of disks of this machine, in that order."""
        opened: dict[int, PointInTime] = {}
        late = [isinstance(disk, PathSource) and disk._is_volume() for disk, _ in disks]
        try:
            for index in sorted(range(len(disks)), key=late.__getitem__):
                disk, since = disks[index]
                opened[index] = disk.open(since.base)
            snapshots = [point for point in opened.values() if isinstance(point, LvmPointInTime)]
            for snapshot in snapshots if len(disks) > 1 else []:
                snapshot.settle()
        except BaseException:
            for point in opened.values():
                point.close()
            raise
        return [opened[index] for index in range(len(disks))]

    def describe(self) -> tuple[int, Consistency]:
        """Size in bytes and the consistency to expect; takes no snapshot."""
        if self._is_volume():
            return LvmSource(self.path).describe()
        opened = self.open()
        try:
            return opened.size, opened.consistency
        finally:
            opened.close()

    def sector_size(self) -> int:
        """An image has none of its own: whoever uses it sees the usual ones."""
        if not self.path.is_block_device():
            return SECTOR
        with self.path.open("rb", buffering=0) as device:
            return sector_size(device.fileno())

    def forget(self, migration: str) -> None:
        """Nothing here keeps track from one cycle to the next."""
        self.recover([self])

    def recover(self, disks: Sequence[Source]) -> None:
        """Remove the snapshots that a killed agent left of these disks."""
        for disk in disks:
            if isinstance(disk, PathSource) and disk._is_volume():
                LvmSource(disk.path).forget()

    def _is_volume(self) -> bool:
        return self.path.is_block_device() and is_volume(self.path)

    def _pick(self) -> Source:
        mode = self.path.stat().st_mode
        if stat.S_ISBLK(mode):
            return LvmSource(self.path) if is_volume(self.path) else DeviceSource(self.path)
        if not stat.S_ISREG(mode):
            raise SourceError(
                f"{self.path} is neither a regular file nor a block device.",
                "Name a disk image, a disk, a partition or a logical volume.",
                code="unsupported_source",
            )
        with self.path.open("rb") as file:
            start = file.read(8)
        if start.startswith(MAGIC):
            return Qcow2Source(self.path, self.bitmap)
        for magic, name in _FOREIGN.items():
            if start.startswith(magic):
                raise SourceError(
                    f"{self.path} is a {name} image; raw and qcow2 images are read.",
                    f"Convert it: qemu-img convert -O qcow2 {self.path} disk.qcow2; or write raw:{self.path} "
                    "if that is what its disk begins with.",
                    code="unsupported_source",
                )
        return ImageSource(self.path)


def _no_bitmap(text: str) -> SourceError:
    return SourceError(
        f"{text} has no bitmap to choose.",
        "Name a qcow2 image or an NBD export, or leave the bitmap out.",
    )
