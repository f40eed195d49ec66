"""A file for one process alone. The kernel lets go of it when the process ends, however it does."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class InUse(Exception):
    """Another process holds the file; `holder` is its id, None where the kernel does not tell (another container)."""

    def __init__(self, path: Path, holder: int | None) -> None:
        self.path, self.holder = path, holder
        super().__init__(f"{path} is held by {self.who}.")

    @property
    def who(self) -> str:
        return "another process" if self.holder is None else f"process {self.holder}"


@contextmanager
def held(path: Path) -> Iterator[None]:
    """For a file that is there, or is made. Raises `InUse`, OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(path, _holder(os.fstat(fd).st_ino)) from None
        yield
    finally:
        os.close(fd)


def _holder(inode: int) -> int | None:
    # Not by its device, too: btrfs and overlays show another one there than to `stat`.
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}") and fields[4] not in ("0", "-1"):
            return int(fields[4])
    return None
