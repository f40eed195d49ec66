"""Several disks that travel, as one store: a pack lies on one of them, everything else on each. See docs/offline.md."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

from wavelift.stores.base import AlreadyThere, Entry, Full, NotThere, StoreError, Unavailable, checked
from wavelift.stores.disk_inventory import Held
from wavelift.stores.disk_label import DiskMissing, members_of
from wavelift.stores.disk_set import create, level, open_disks
from wavelift.stores.offline_disk import OfflineDisk, is_pack

T = TypeVar("T")
_KEY = attrgetter("key")


class OfflineStore:
    """Of the disks mounted in `folders`, in whatever order; others of their set may be elsewhere."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Nothing is written. Raises `DiskRefused`, OSError."""
        self.disks = open_disks(folders)
        self.name = "offline:" + ",".join(str(disk.folder) for disk in self.disks)
        here = {disk.label.disk for disk in self.disks}
        self._members = members_of(disk.label for disk in self.disks)
        self.absent = tuple(member.label for member in self._members.values() if member.disk not in here)
        self._last: OfflineDisk | None = None
        self._read: OfflineDisk | None = None

    @classmethod
    def create(cls, folders: Sequence[Path]) -> OfflineStore:
        """For writing: a disk that belongs to no set yet, or an empty folder, becomes one of the set of the others, or
        of a new one; and each gets what the others have for all. Raises `StoreError`, OSError."""
        create(folders)
        made = cls(folders)
        level(made.disks)
        return made

    @property
    def set_id(self) -> str:
        found = self.disks[0].label.set
        assert found is not None
        return found

    def put(self, key: str, data: bytes | bytearray | memoryview, *, new: bool = False) -> None:
        put = self._put_pack if is_pack(checked(key)) else self._put_shared
        try:
            if not new:
                put(key, data)
                return
            with self.disks[0].store.alone():
                if any(disk.has(key) for disk in self.disks):
                    raise AlreadyThere(self.name, key)
                put(key, data)
        except OSError as error:
            raise self._unusable(key, error) from error

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._find(key, lambda disk: disk.store.get(key, start, length))

    def size(self, key: str) -> int:
        return self._find(key, lambda disk: disk.store.size(key))

    def list(self, prefix: str) -> Iterator[Entry]:
        """What is on the disks that are here."""
        merged = heapq.merge(*(disk.store.list(prefix) for disk in self.disks), key=_KEY)
        for _, copies in groupby(merged, key=_KEY):
            yield max(copies, key=lambda entry: entry.put_at)

    def delete(self, keys: Iterable[str]) -> None:
        """Raises `DiskMissing` unless all disks of the set are here: on one that is not, an object would stay."""
        wanted = [checked(key) for key in keys]
        if wanted and self.absent:
            raise DiskMissing(f"Nothing is deleted from a part of the set {self.set_id[:6]}", self.absent)
        try:
            for disk in self.disks:
                disk.inventory.drop(key for key in wanted if is_pack(key))
                disk.store.delete(wanted)
        except OSError as error:
            raise self._unusable(wanted[0], error) from error

    def holders(self, key: str) -> Sequence[OfflineDisk]:
        """The disks here that have it."""
        return [disk for disk in self.disks if disk.has(key)]

    def expected(self) -> dict[str, Held]:
        """The packs that the set should hold, by key, as far as the disks here know. Raises `Unavailable`."""
        found: dict[str, Held] = {}
        for disk in self.disks:
            try:
                found.update(disk.inventory.read())
            except OSError as error:
                raise Unavailable(
                    f"{disk.store.name}: its inventory cannot be read: {error.strerror or error}.",
                    "Copy what can be read to a sound disk; without the inventory, if need be.",
                ) from error
        return found

    def label_of(self, disk: str) -> str:
        """Of a disk of the set, by its id; the id itself of one that none here knows."""
        return self._members[disk].label if disk in self._members else disk

    def _put_shared(self, key: str, data: bytes | bytearray | memoryview) -> None:
        # A record comes after its packs, and so after what is known of them.
        for disk in self.disks:
            disk.inventory.sync()
        for disk in self.disks:
            disk.store.put(key, data)

    def _put_pack(self, key: str, data: bytes | bytearray | memoryview) -> None:
        holders = self.holders(key)
        for disk in [*holders, *(disk for disk in self._in_turn() if disk not in holders)]:
            with disk.promised(len(data)) as fits:
                if not fits:
                    continue
                try:
                    disk.store.put(key, data)
                except Full:
                    # It had room by its own account: somebody else wrote, or its folder takes no more files.
                    continue
            self._last = disk
            for each in self.disks:
                each.inventory.add([(key, Held(disk.label.disk, len(data)))])
            for former in holders:
                if former is not disk:
                    former.store.delete([key])
            return
        raise self._full(key, len(data))

    def _in_turn(self) -> Sequence[OfflineDisk]:
        """The disk that was filled last, those after it, those before it."""
        if self._last is None:
            self._last = next((disk for disk in reversed(self.disks) if disk.has_packs()), self.disks[0])
        at = self.disks.index(self._last)
        return self.disks[at:] + self.disks[:at]

    def _find(self, key: str, ask: Callable[[OfflineDisk], T]) -> T:
        failed: StoreError | None = None
        for disk in self._likeliest(checked(key)):
            try:
                found = ask(disk)
            except NotThere:
                continue
            except StoreError as error:
                failed = failed or error
            else:
                self._read = disk
                return found
        raise failed or self._missing(key)

    def _likeliest(self, key: str) -> Sequence[OfflineDisk]:
        if is_pack(key):
            return sorted(self.disks, key=lambda disk: disk is not self._read)
        # A disk that was elsewhere when it was replaced has it as it was.
        return sorted(self.disks, key=lambda disk: -disk.written_at(key))

    def _missing(self, key: str) -> StoreError:
        if not self.absent or not is_pack(key):
            return NotThere(self.name, key)
        held = self.expected().get(key)
        label = None if held is None else self.label_of(held.disk)
        if label is not None and label not in self.absent:
            return NotThere(label, key)
        return DiskMissing(f"{self.name} has no {key}", self.absent if label is None else (label,))

    def _full(self, key: str, size: int) -> Full:
        rooms = [(disk.label.label, disk.room) for disk in self.disks]
        told = ", ".join(f"{label} has {room}" for label, room in rooms)
        more = size - max(room for _, room in rooms)
        if more > 0:
            return Full(
                f"No disk has room for the {size} bytes of {key}: {told} left for packs; {more} more are needed.",
                "Add an empty disk to the set: name its folder too.",
            )
        return Full(
            f"No disk takes {key} any more, though by their own account there is room for its {size} bytes: {told}.",
            "A folder of vfat takes some thousand files: use disks with ext4 or exFAT. Else look at quotas.",
        )

    def _unusable(self, key: str, error: OSError) -> StoreError:
        return Unavailable(
            f"{self.name}: {key} cannot be written: {error.strerror or error} ({error.filename}).",
            "Check that the disks are there, mounted and writable.",
        )
