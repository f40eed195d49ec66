"""The demo's command, run as `make demo` runs it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.parts import REPO
from demo.stack import Stack


@dataclass(frozen=True)
class Told:
    """What `python -m demo run` printed and wrote, and what was in the cloud before."""

    output: str
    summary: dict[str, Any]
    before: dict[str, set[str]]


def run_demo(stack: Stack, manifest: Path, json_file: Path) -> subprocess.CompletedProcess[str]:
    """What `make demo` runs, on the stack that is running."""
    command = [sys.executable, "-m", "demo", "run", "--state", str(stack.state)]
    arguments = ["--manifest", str(manifest), "--json", str(json_file)]
    return subprocess.run([*command, *arguments], cwd=REPO, capture_output=True, text=True, timeout=800)
