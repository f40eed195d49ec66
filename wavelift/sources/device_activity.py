"""What the kernel tells of a block device: which one it is, and how much was written to it."""

from __future__ import annotations

import os
from pathlib import Path

# Fields of /sys/.../stat, by the kernel's Documentation/block/stat.rst.
# Sectors, not requests: a flush counts as a request.
_READ_SECTORS, _WRITTEN_SECTORS, _DISCARDED_SECTORS = 2, 6, 13


class Activity:
    """A device's counters. Reading a folder of /sys that vanished, as the device did, raises OSError."""

    def __init__(self, number: int) -> None:
        self._folder = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve(strict=True)
        # A partition has the counters, its disk the rest.
        self._disk = self._folder.parent if (self._folder / "partition").exists() else self._folder

    def identity(self) -> str:
        """This very device under this running kernel: the counters begin anew with either."""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # diskseq (Linux 5.15) tells two media in one drive, or two files behind one loop device, apart.
        marks = [_text(self._disk / "diskseq"), _text(self._folder / "start")]
        return ":".join([boot, self._folder.name, *marks])

    def written(self) -> str:
        """Changes with every write or discard that ended, where the kernel counts at all."""
        fields = self._fields()
        # Kernels before 4.18 do not count discards.
        counts = [fields[index] for index in (_WRITTEN_SECTORS, _DISCARDED_SECTORS) if index < len(fields)]
        return ".".join([*counts, self._backing_file()])

    def sectors_read(self) -> int:
        return int(self._fields()[_READ_SECTORS])

    def busy(self) -> bool:
        """Whether a write is under way, which may be on the medium in part and is not counted yet."""
        return (self._folder / "inflight").read_text().split()[1] != "0"

    def _fields(self) -> list[str]:
        return (self._folder / "stat").read_text().split()

    def _backing_file(self) -> str:
        """A loop device's file can be written without the device; its time of change tells."""
        name = _text(self._disk / "loop/backing_file")
        if not name:
            return ""
        try:
            info = Path(name).stat()
        except FileNotFoundError:
            return "deleted"
        return f"{info.st_dev}:{info.st_ino}:{info.st_mtime_ns}"


def _text(path: Path) -> str:
    """An attribute's value; empty where this kind of device, or an older kernel, has none."""
    return path.read_text().removesuffix("\n") if path.exists() else ""
