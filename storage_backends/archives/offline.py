"""Archives on disks that travel, or in a folder, as a backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from storage_backends.archives.backend import ArchiveBackend, prefix_of
from storage_backends.archives.index import volume_id
from storage_backends.archives.sealing import master_of
from storage_backends.base import Labels
from storage_backends.fields import Fields
from wavelift.archive.descriptor import DisksArchive
from wavelift.archive.keys import archive_secret
from wavelift.stores.base import Store
from wavelift.stores.offline import OfflineStore


class DisksPlace:
    """Disks of one set, mounted in `folders`. Whoever may read these needs no other credential."""

    carrier: Literal["disks"] = "disks"

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    def store(self) -> Store:
        return OfflineStore.create(self._folders)

    def descriptor(self, prefix: str, key: str, *, writes: bool) -> DisksArchive:
        return DisksArchive(folders=[str(folder) for folder in self._folders], prefix=prefix, key=key)


def shipped(fields: Fields, labels: Labels, folders: Sequence[str]) -> DisksArchive:
    """The archive of a volume on disks that are mounted in `folders` of another machine: nothing is looked at here, the
    machine that writes there makes it. Raises InvalidRequest for a connection without a master key."""
    master, name = master_of(fields), volume_id(labels)
    key = "" if master is None else archive_secret(master, name).hex()
    return DisksArchive(folders=list(folders), prefix=prefix_of(name), key=key)


def open_offline(folders: Sequence[Path], master: bytes | None) -> ArchiveBackend:
    return ArchiveBackend(DisksPlace(folders), master)
