"""Archives in the memory of this machine, as a backend: a true peer of the others, for tests and trials.

They lie in a folder that only this user may read, in a file system without a disk, so that the processes of agent and
gateway can open what `sink` and `source` describe. They are there until `close`, or until the machine is switched off.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from storage_backends.archives.backend import ArchiveBackend
from storage_backends.archives.offline import DisksPlace
from storage_backends.errors import Denied

_MEMORY = Path("/dev/shm")


class MemoryBackend(ArchiveBackend):
    def __init__(self, name: str, master: bytes | None) -> None:
        """Of the same name, the same. Raises Denied where somebody else has one of that name."""
        self._folder = _MEMORY / f"wavelift-{os.getuid()}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        about = self._folder.lstat()
        if about.st_uid != os.getuid() or about.st_mode & 0o170077 != 0o040000:
            raise Denied(f"{self._folder} is not a folder of this user alone.", "Remove it.")
        super().__init__(DisksPlace([self._folder]), master)

    def close(self) -> None:
        """Forget everything."""
        shutil.rmtree(self._folder)
