"""`folder:DIR` as TARGET of the copy command: each copy is one more generation in a folder of packs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wavelift.blocks.blockmap import DiskMap
from wavelift.blocks.compare import SourceTables, differences
from wavelift.blocks.compress import Compression
from wavelift.blocks.pace import PacedSink
from wavelift.blocks.packfolder import PACK_BYTES, PackFolder
from wavelift.blocks.sink import Sink
from wavelift.blocks.throttle import Flow
from wavelift.cli.footing import Attempt, Ranges
from wavelift.cli.report import Watch
from wavelift.cli.tables import Watched
from wavelift.cli.targets import TargetRefused
from wavelift.sources.choose import FOLDER
from wavelift.sources.packs import PackFolderSource


class FolderTarget:
    migration = "copy"
    # What is kept for good is worth the time that it takes to make it small.
    compression = Compression(1)
    pack_bytes = PACK_BYTES
    modified = left = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self._generation: int | None = None

    @property
    def text(self) -> str:
        return f"{FOLDER}{self.path.absolute()}"

    @property
    def exists(self) -> bool:
        return (self.path / "folder.json").exists()

    @property
    def id(self) -> str:
        """The folder's own, wherever it is moved to. Raises `FolderError`."""
        return f"folder-{PackFolder(self.path).id}"

    @property
    def newest(self) -> int:
        """Of those that are there, and of those that were begun and may yet go on. Raises OSError."""
        begun = [int(path.name) for path in (self.path / "packs").iterdir() if path.name.isdigit()]
        return max([*PackFolder(self.path).generations(), *begun], default=0)

    def refuse_source(self, source: Path) -> None:
        if source.resolve().is_relative_to(self.path.resolve()):
            raise TargetRefused(f"The source {source} lies in the target {self.path}.", "Name another target.")

    def require_verifiable(self, how: str) -> None:
        """All of a folder can be read back, and in part it can not."""
        if how != "full":
            raise TargetRefused("Of a folder of packs all is read back, or nothing.", "Give --verify full.")

    @contextmanager
    def held(self, size: int, ours: Callable[[str], bool]) -> Iterator[int]:
        """Made if it is not there. What it holds already stays, so no other copy's work is in danger.

        Raises `FolderError`, OSError.
        """
        folder = PackFolder(self.path) if self.exists else PackFolder.create(self.path)
        with folder.held():
            yield 0

    def sinks(self, generation: int, flow: Callable[[], Flow]) -> Callable[[], Sink]:
        self._generation = generation
        return lambda: PacedSink(PackFolder(self.path).sink(generation), flow())

    def unlike(self, attempt: Attempt, watch: Watch) -> Ranges | None:
        """Each pack is looked at before a generation counts."""
        return []

    def keep(self, found: DiskMap, result: dict[str, Any], attempt: Attempt) -> None:
        """What was copied becomes a generation. Raises `BlocksLost`, `FolderError`, OSError."""
        assert self._generation is not None
        consistency = str(result["disks"][0]["consistency"])
        PackFolder(self.path).commit(self.migration, self._generation, result["base_used"], [(found, consistency)])

    def differing(self, disk: str, generation: int, found: DiskMap, how: str, watch: Watch) -> list[tuple[int, int]]:
        """Raises `BlocksLost`: a block that does not read back as it was is not read at all."""
        moment = PackFolderSource(self.path, generation, disk).open()
        try:
            return list(differences(found, Watched(SourceTables(moment, check=watch.check), watch), watch.check))
        finally:
            moment.close()

    def discard(self) -> None:
        if self.exists and self._generation is not None:
            PackFolder(self.path).discard(self._generation)
