"""Archives on disks that travel, or in a folder, as a backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from storage_backends.archives import ArchiveBackend
from wavelift.archive.descriptor import DisksArchive
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


def open_offline(folders: Sequence[Path], master: bytes | None) -> ArchiveBackend:
    return ArchiveBackend(DisksPlace(folders), master)
