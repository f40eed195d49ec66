"""The digest tables of what a command line names: an image, a device, an export, a guest's disk, a block map."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from wavelift.archive.keys import KeyOf
from wavelift.archive.opening import SCHEMES
from wavelift.blocks.blockmap import MAGIC, DiskMap, read_map
from wavelift.blocks.compare import SourceTables, Tables
from wavelift.blocks.digest import SEGMENT
from wavelift.blocks.errors import SourceError
from wavelift.blocks.readback import ReadBack
from wavelift.cli.report import Watch
from wavelift.sources.base import Consistency, Extent, PointInTime
from wavelift.sources.choose import source_for
from wavelift.sources.image import ImageSource
from wavelift.sources.qemu import QemuDisk

# What an image of that format, or of a raw disk in a file, is told apart by.
_FORMATS = ("raw:", "qcow2:")


def path_of(text: str) -> Path | None:
    """The file or device that a source's text names; None when it names none of this machine."""
    for prefix in _FORMATS:
        text = text.removeprefix(prefix)
    return None if "://" in text or text.startswith(("qmp:", *SCHEMES)) else Path(text)


class Disk:
    """What a text names, opened. Without `point` it is a block map: the disk it was made of may be gone."""

    def __init__(self, stack: ExitStack, text: str, watch: Watch, key: KeyOf | None) -> None:
        """`key` opens an archive that is sealed. Raises `SourceError` and its kinds, `MapError`, OSError."""
        self.text = text
        self.path = path_of(text)
        self.point: PointInTime | None = None
        self._map: DiskMap | None = None
        self._stack = stack
        self._watch = watch
        if self.path is not None and self.path.is_file() and begins(self.path, MAGIC):
            self._map = read_map(self.path)
            self.size = self._map.size
            return
        source = source_for(text, key=key)
        self._in_file = source.kind == ImageSource.kind
        if isinstance(source, QemuDisk):
            # Its moments are followed by none.
            stack.callback(source.forget, "")
        self.point = source.open()
        stack.callback(self.point.close)
        self.size = self.point.size
        self._token = self.point.token

    @property
    def consistency(self) -> Consistency | None:
        """Ask after the last read; None of a block map."""
        return None if self.point is None else self.point.consistency

    @property
    def is_device(self) -> bool:
        return self.path is not None and self.path.is_block_device()

    def tables(self, size: int) -> Tables:
        """Of the first `size` bytes; a block map's as a whole. Of an image in a file, what is on the medium counts."""
        if self._map is not None:
            return self._map
        assert self.point is not None
        if self._in_file and self.path is not None:
            return self._stack.enter_context(ReadBack(self.path, size, check=self._watch.check))
        return SourceTables(_First(self.point, size), check=self._watch.check)

    def require_unchanged(self) -> None:
        """Raises `SourceError`: it changed since it was opened, and what was read is of no single moment."""
        if self.point is not None and self.point.token != self._token:
            raise SourceError(
                f"{self.text} changed while it was read.", "Stop what writes to it.", code="source_changed"
            )


class Watched:
    """Tables whose reading is progress."""

    def __init__(self, tables: Tables, watch: Watch) -> None:
        self.size = tables.size
        self._tables = tables
        self._watch = watch
        # A rate needs a beginning.
        watch.progress(total=self.size, done=0)

    def segment(self, number: int) -> bytes:
        found = self._tables.segment(number)
        self._seen(number)
        return found

    def table(self, number: int) -> bytes:
        found = self._tables.table(number)
        self._seen(number)
        return found

    def _seen(self, number: int) -> None:
        self._watch.progress(total=self.size, done=min(self.size, (number + 1) * SEGMENT))


class _First:
    """The first bytes of a point in time."""

    def __init__(self, point: PointInTime, size: int) -> None:
        self.size = size
        self._point = point

    def extents(self) -> Iterable[Extent]:
        return self._point.extents()

    def readinto(self, offset: int, view: memoryview) -> None:
        self._point.readinto(offset, view)


def begins(path: Path, magic: bytes) -> bool:
    """Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(magic)) == magic
