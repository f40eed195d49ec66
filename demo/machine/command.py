"""Running the tools that make the disks."""

import os
import subprocess
from collections.abc import Mapping, Sequence

SOURCE_DATE_EPOCH = 1767225600  # 2026-01-01, the date of every file that the recipe makes
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


class CommandFailed(Exception):
    """A tool of the recipe ended with an error."""

    def __init__(self, command: Sequence[str], status: int, output: str) -> None:
        self.command = list(command)
        self.status = status
        self.output = output
        super().__init__(f"{' '.join(command)} ended with status {status}:\n{output.strip()[-4000:]}")


def run(command: Sequence[str], *, environment: Mapping[str, str] | None = None, accept: Sequence[int] = (0,)) -> str:
    """Run a tool with a fixed clock and locale and return what it printed."""
    clock = str(SOURCE_DATE_EPOCH)
    settings = {
        **os.environ,
        # An ordinary user's PATH lacks the folders where mke2fs and debugfs live.
        "PATH": f"{os.environ.get('PATH', '/usr/bin:/bin')}:{_SBIN}",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": clock,
        "E2FSPROGS_FAKE_TIME": clock,
        **(environment or {}),
    }
    done = subprocess.run(
        list(command), env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode not in accept:
        raise CommandFailed(command, done.returncode, done.stdout)
    return done.stdout
