"""The command as people use it: in a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wavelift.cli.main import main

DEMO = Path(__file__).parents[2] / "manifests" / "demo.yaml"


def test_a_reader_that_has_seen_enough_is_no_failure_to_report() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "wavelift.cli.main", "plan", str(DEMO)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("arguments", [("map",), ("map", "--json")])
def test_a_verdict_nobody_reads_is_none(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "disk.raw").write_bytes(bytes(512))
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "wavelift.cli.main", *arguments, str(tmp_path / "disk.raw")]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writing)
    # Not 1: that would say that two disks differ.
    assert (done.returncode, done.stderr) == (2, "error: nobody reads the output any more\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gateway", "--state", "s", "--devices", "nowhere", "--key-file", "k"), "nowhere is not a folder"),
        (("agent", "--state", "s", "--token-file", "nowhere"), "nowhere cannot be read"),
    ],
)
def test_a_service_that_cannot_start_says_why(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    # A process of its own: a service lowers its limits before anything else.
    command = [sys.executable, "-m", "wavelift.cli.main", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"wavelift {arguments[0]}: ") and said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["agent", "gateway"])
def test_the_help_of_a_service_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0 and "examples:\n  openssl rand -hex 32 > " in capsys.readouterr().out
