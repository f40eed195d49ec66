"""LVM logical volumes, read from a snapshot that lives as long as the copy."""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from wavelift.blocks.errors import SourceError
from wavelift.sources import lvm_plan
from wavelift.sources.base import Consistency, Extent, PointInTime
from wavelift.sources.device import DevicePointInTime

_log = logging.getLogger(__name__)
# One thread's sweep must not find the snapshot another one has just made and not opened yet.
_changing = threading.Lock()


def is_volume(path: Path) -> bool:
    return _mapper_uuid(path).startswith("LVM-")


class LvmSource:
    """A snapshot per opening; without room for one the volume itself, which then may change while it is read."""

    kind = "lvm"

    def __init__(self, path: Path) -> None:
        self.path = path

    def describe(self) -> tuple[int, Consistency]:
        """Size in bytes and the consistency to expect, without a snapshot."""
        volume = self._find(_volumes())
        return volume.size, Consistency.MOVING if isinstance(lvm_plan.snapshot_size(volume), str) else Consistency.CRASH

    def open(self, token: str | None = None) -> PointInTime:
        """Raises `SourceError`: no such volume, LVM's own refusals."""
        with _changing:
            volume = self._swept()
            size = lvm_plan.snapshot_size(volume)
            if isinstance(size, str):
                return DevicePointInTime(self.path, f"no snapshot of {self.path}: {size}")
            # A name of the volume's would take the 128 characters that LVM has for names.
            name = f"wavelift-{secrets.token_hex(6)}"
            _run(lvm_plan.create(volume, name, size))
            try:
                return LvmPointInTime(volume, name)
            except BaseException:
                _remove(volume.group, name)
                raise

    def forget(self) -> None:
        """Remove what a killed agent left."""
        with _changing:
            self._swept()

    def _swept(self) -> lvm_plan.Volume:
        """The volume once nothing is left of a killed agent, which gives its group room."""
        volumes = _volumes()
        volume = self._find(volumes)
        left = lvm_plan.leftovers(volumes, volume)
        for found in left:
            _remove(found.group, found.name)
        return self._find(_volumes()) if left else volume

    def _find(self, volumes: list[lvm_plan.Volume]) -> lvm_plan.Volume:
        uuid = _mapper_uuid(self.path)
        for volume in volumes:
            if volume.uuid == uuid:
                return volume
        raise SourceError(f"{self.path} is no logical volume that lvs lists.", "Check the path.")


class LvmPointInTime:
    """A snapshot; one that overflows fails every read from then on, so that no wrong byte is copied."""

    tracked = False

    def __init__(self, volume: lvm_plan.Volume, name: str) -> None:
        self._volume = volume
        self._name = name
        self._mapped = lvm_plan.mapped(volume.group, name)
        path = Path("/dev/mapper") / self._mapped
        self._device = DevicePointInTime(path)
        self.size = self._device.size
        self.token = f"lvm:{_mapper_uuid(path)}"
        self.consistency = Consistency.CRASH
        self.notes: Sequence[str] = ()

    def extents(self) -> Iterator[Extent]:
        return self._device.extents()

    def readinto(self, offset: int, view: memoryview) -> None:
        try:
            self._device.readinto(offset, view)
        except SourceError:
            if self._state().full:
                raise SourceError(
                    f"The snapshot of {self._volume.full_name} ran full: more was written to the volume than fits.",
                    f"Copy when less is written, or give the group more room (vgextend {self._volume.group}): "
                    "a snapshot takes up to a fifth of its volume.",
                    code="snapshot_full",
                ) from None
            raise

    def close(self) -> None:
        self._device.close()
        _remove(self._volume.group, self._name)

    def settle(self) -> None:
        """Called once all snapshots of a job are taken: the instant of the last holds only for what was not written."""
        if not self._state().untouched:
            self.consistency = Consistency.MOVING
            self.notes = (
                f"{self._volume.full_name} was written to before the snapshots of the other disks were taken: "
                "the disks are not of one instant",
            )

    def _state(self) -> lvm_plan.SnapshotState:
        return lvm_plan.state(_run(["dmsetup", "status", self._mapped]))


def _volumes() -> list[lvm_plan.Volume]:
    return lvm_plan.parse(_run(lvm_plan.QUERY))


def _remove(group: str, name: str) -> None:
    try:
        _run(lvm_plan.remove(group, name))
    except SourceError as error:
        # In use by another agent, or by whoever looks at it; the next opening tries again.
        _log.warning("The snapshot %s/%s stays for now: %s", group, name, error.message)


def _mapper_uuid(path: Path) -> str:
    """Device-mapper's name for the device; empty for any other."""
    try:
        number = path.stat().st_rdev
        return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/dm/uuid").read_text().strip()
    except FileNotFoundError:
        return ""


def _run(command: list[str]) -> str:
    # The descriptors are not inherited, whatever LVM thinks of those that it finds.
    environment = {**os.environ, "LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise SourceError(
            f"{command[0]} cannot be started: {error.strerror}.", "Install lvm2.", code="missing_program"
        ) from None
    if done.returncode:
        raise SourceError(
            f"{' '.join(command)} failed: {done.stderr.strip()}",
            "Check that the agent runs as root, and the volume group (vgs, lvs).",
            code="lvm_failed",
        )
    return done.stdout
