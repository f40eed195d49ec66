"""The command as a process, in a folder of its own, and images to copy."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wavelift.cli.main import main

MIB = 1 << 20


class Shell:
    """Runs `wavelift` in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        temporary = folder / "tmp"
        temporary.mkdir()
        self.environment = {**os.environ, "TMPDIR": str(temporary)}

    def start(self, *arguments: str | Path, **how: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "wavelift.cli.main", *map(str, arguments)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, text=True, **streams)

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(list(map(str, arguments)), process.returncode, out, err)

    def json(self, *arguments: str | Path, status: int = 0) -> dict[str, Any]:
        """The last object of a command with --json; not as a process, whose start takes longer than all the rest."""
        said = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(said), self._environment():
            got = main([*map(str, arguments), "--json"])
        assert got == status, said.getvalue()
        last: dict[str, Any] = [json.loads(line) for line in said.getvalue().splitlines()][-1]
        return last

    @contextlib.contextmanager
    def _environment(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TMPDIR", self.environment["TMPDIR"])
            yield

    def left(self) -> list[str]:
        """What commands left in the folder for temporary files."""
        return [path.name for path in (self.folder / "tmp").iterdir()]

    def image(self, name: str, size: int, pieces: dict[int, bytes]) -> Path:
        path = self.folder / name
        with path.open("wb") as file:
            file.truncate(size)
        write(path, pieces)
        return path


def write(path: Path, pieces: dict[int, bytes]) -> None:
    with path.open("r+b") as file:
        for offset, data in pieces.items():
            file.seek(offset)
            file.write(data)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def same(left: Path, right: Path) -> bool:
    return subprocess.run(["cmp", "-s", left, right], check=False).returncode == 0


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)
