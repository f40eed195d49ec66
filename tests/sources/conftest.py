"""Loop devices over files, taken down whatever happens."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

LoopDevice = Callable[..., Path]


@pytest.fixture
def loop_device() -> Iterator[LoopDevice]:
    """A function that puts a loop device over a file; `losetup` options may follow."""
    if os.geteuid() != 0:
        pytest.skip("loop devices take root")
    with ExitStack() as stack:

        def attach(file: Path, *options: str) -> Path:
            command = ["losetup", "--find", "--show", *options, file]
            found = subprocess.run(command, capture_output=True, text=True)
            if found.returncode:
                pytest.skip(f"no loop devices here: {found.stderr.strip()}")
            device = found.stdout.strip()
            stack.callback(subprocess.run, ["losetup", "--detach", device], check=True)
            return Path(device)

        yield attach
