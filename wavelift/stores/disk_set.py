"""Which disks make a set: opening those that are here, making new ones, and giving each what all should have."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from wavelift.blocks.files import sync_folder
from wavelift.stores.disk_inventory import FILE as INVENTORY
from wavelift.stores.disk_label import FILE, DiskLabel, DiskRefused, members_of, now, read_label, write_label
from wavelift.stores.offline_disk import OBJECTS, OfflineDisk

# What file systems and desktops put on a disk of themselves.
_OF_ITSELF = ("lost+found", "System Volume Information", "$RECYCLE.BIN")


def open_disks(folders: Sequence[Path]) -> list[OfflineDisk]:
    """In the order of their numbers. Raises `DiskRefused`, OSError."""
    _require_different(folders)
    found = []
    for folder in folders:
        label = read_label(folder)
        if label is None or label.set is None:
            raise DiskRefused(f"{folder} is no disk of a set: it has no {FILE} that names one.", "Check the folder.")
        found.append(OfflineDisk(folder, label))
    _require_one_set([(disk.folder, disk.label) for disk in found])
    return sorted(found, key=lambda disk: (disk.label.number, disk.label.disk))


def create(folders: Sequence[Path]) -> None:
    """Make them disks of one set, if they are not. Raises `DiskRefused`, OSError."""
    _require_different(folders)
    with _alone(folders):
        there = {folder: read_label(folder) for folder in folders}
        joined = [(folder, label) for folder, label in there.items() if label is not None and label.set is not None]
        _require_one_set(joined)
        of = joined[0][1].set if joined else secrets.token_hex(16)
        assert of is not None
        members = members_of(label for _, label in joined)
        labels = []
        for folder, label in there.items():
            if label is None:
                _require_empty(folder)
            if label is None or label.set is None:
                number = 1 + max((member.number for member in members.values()), default=0)
                label = _label(of, number, label)
                if any(member.label == label.label for member in members.values()):
                    raise DiskRefused(f"The set has a disk {label.label} already.", f"Give {folder} another label.")
                members[label.disk] = label.member
            labels.append((folder, label))
        for folder, label in labels:
            _make_ready(folder)
            whole = replace(label, members=tuple(members.values()))
            if there[folder] != whole:
                write_label(folder, whole)


def level(disks: Sequence[OfflineDisk]) -> None:
    """Give each what others have for all, the newest of it, and what they know of packs. Raises `StoreError`,
    OSError."""
    shared = [(disk, disk.shared()) for disk in disks]
    for key in sorted({key for _, there in shared for key in there}):
        newest, about = max(((disk, there[key]) for disk, there in shared if key in there), key=lambda each: each[1].at)
        # Copies of one size that differ are left: which of them a disk has damaged is not known here.
        unlike = [disk for disk, there in shared if key not in there or there[key].size != about.size]
        if unlike:
            data = newest.store.get(key)
            for disk in unlike:
                disk.store.put(key, data)
    if len(disks) > 1:
        known = {key: held for disk in disks for key, held in disk.inventory.read().items()}
        for disk in disks:
            own = disk.inventory.read()
            disk.inventory.add((key, held) for key, held in known.items() if key not in own)
            disk.inventory.sync()


def _make_ready(folder: Path) -> None:
    (folder / OBJECTS).mkdir(exist_ok=True)
    (folder / INVENTORY).touch(0o600)
    sync_folder(folder)


def _label(of: str, number: int, ready: DiskLabel | None) -> DiskLabel:
    if ready is not None:
        return replace(ready, set=of, number=number)
    return DiskLabel(secrets.token_hex(8), number, f"WL-{of[:6]}-{number:02}", of, (), now())


def _require_different(folders: Sequence[Path]) -> None:
    if not folders:
        raise DiskRefused("No disk is named.", "Name the folders where they are mounted.")
    seen: dict[tuple[int, int], Path] = {}
    for folder in folders:
        about = folder.stat()
        identity = about.st_dev, about.st_ino
        if identity in seen:
            raise DiskRefused(f"{seen[identity]} and {folder} are the same disk.", "Name each disk once.")
        seen[identity] = folder


def _require_one_set(disks: Sequence[tuple[Path, DiskLabel]]) -> None:
    first, of = disks[0] if disks else (None, None)
    seen: dict[str, Path] = {}
    for folder, label in disks:
        if of is not None and label.set != of.set:
            raise DiskRefused(
                f"{first} is {of.label} of the set {of.set}, and {folder} is {label.label} of the set {label.set}.",
                "Name disks of one set.",
            )
        if label.disk in seen:
            raise DiskRefused(
                f"{seen[label.disk]} and {folder} both are {label.label}: one is a copy.", "Name only one of them."
            )
        seen[label.disk] = folder


def _require_empty(folder: Path) -> None:
    there = [path.name for path in folder.iterdir() if path.name not in _OF_ITSELF and not path.name.startswith(".")]
    if there:
        raise DiskRefused(
            f"{folder} is not empty and no offline disk: it holds {', '.join(sorted(there)[:3])}.",
            "Name an empty folder, or an empty disk.",
        )


@contextmanager
def _alone(folders: Sequence[Path]) -> Iterator[None]:
    with ExitStack() as stack:
        for folder in sorted(folder.resolve() for folder in folders):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
