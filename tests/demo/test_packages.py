"""Without root, the set-up names exactly what is missing and the line that installs it, and stops."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "packages.sh"
NOBODY = 65534


def run_as_nobody(script: str) -> subprocess.CompletedProcess[str]:
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, cwd="/", **user)  # type: ignore[call-overload, no-any-return]


def test_a_missing_package_is_named_with_its_command() -> None:
    script = SCRIPT.read_text().replace('packages="', 'packages="no-such-package-a no-such-package-b ')
    done = run_as_nobody(script)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].split() == [
        *("sudo", "apt-get", "install", "-y", "--no-install-recommends"),
        *("no-such-package-a", "no-such-package-b"),
    ]


def test_nothing_is_said_when_everything_is_there() -> None:
    done = run_as_nobody(SCRIPT.read_text())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
