"""How a copy ends before its end: signals, faults of the target; and what it shows until then."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import MIB, Shell, noise, same, write
from wavelift.agent.state import MigrationState
from wavelift.blocks.digest import BLOCK
from wavelift.cli import copy, sample

SIZE = 16 * MIB
# So slow that it does not come to its end by itself.
SLOW = ("copy", "--limit", "1M")


@pytest.fixture
def disk(shell: Shell) -> Path:
    return shell.image("disk.raw", SIZE, {0: noise(SIZE)})


def first_progress(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "progress" and event["step"] == "copying":
            return event
    raise AssertionError(process.communicate())


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_ends_it_and_the_state_says_where(shell: Shell, disk: Path, number: int, status: int) -> None:
    process = shell.start(*SLOW, "--json", "--state", "kept", "disk.raw", "copy.raw")
    shown = first_progress(process)
    assert shown["total_bytes"] == SIZE and shown["done_bytes"] < SIZE
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    last = json.loads(out.splitlines()[-1])
    assert (process.returncode, err) == (status, "")
    assert last["code"] == "interrupted" and "Repeat the command" in last["remedy"]
    shell.json("copy", "--state", "kept", "disk.raw", "copy.raw")
    assert same(disk, shell.folder / "copy.raw")


def test_without_a_state_nothing_is_left(shell: Shell, disk: Path) -> None:
    process = shell.start(*SLOW, "--json", "disk.raw", "copy.raw")
    first_progress(process)
    # A state in use is nobody else's; there is none here, but the target is held.
    assert shell.json("copy", "--overwrite", "disk.raw", "copy.raw", status=2)["code"] == "target_refused"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "--state" in json.loads(out.splitlines()[-1])["remedy"]
    assert shell.left() == [] and not (shell.folder / "copy.raw").exists()


def test_one_copy_at_a_time_has_a_state(shell: Shell, disk: Path) -> None:
    process = shell.start(*SLOW, "--json", "--state", "kept", "disk.raw", "copy.raw")
    first_progress(process)
    error = shell.json("copy", "--state", "kept", "disk.raw", "copy.raw", status=2)
    assert error["code"] == "state_unusable" and "Another copy" in error["message"]
    process.kill()
    process.communicate()
    shell.json("copy", "--state", "kept", "disk.raw", "copy.raw")
    assert same(disk, shell.folder / "copy.raw")


def test_on_a_terminal_one_line_is_drawn_again(shell: Shell, disk: Path) -> None:
    reading, writing = pty.openpty()
    process = shell.start(*SLOW, "disk.raw", "copy.raw", stderr=writing)
    os.close(writing)
    drawn = b""
    while drawn.count(b"copying:") < 3:
        drawn += os.read(reading, 4096)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    os.close(reading)
    assert drawn.count(b"\n") == 0 and b"of 16.0 MiB" in drawn and drawn.count(b"\r") >= 3


def corrupting(monkeypatch: pytest.MonkeyPatch, target: Path, places: list[int]) -> None:
    """The target loses what it was sent at those bytes, between the copy and the look at it."""
    real: Callable[..., dict[str, Any]] = copy.replicate

    def replicate(*arguments: Any) -> dict[str, Any]:
        result = real(*arguments)
        there = target.read_bytes()
        write(target, {at: bytes([there[at] ^ 1]) for at in places})
        return result

    monkeypatch.setattr(copy, "replicate", replicate)


def test_flipped_bits_are_named_and_sent_again(shell: Shell, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = shell.folder / "copy.raw"
    with monkeypatch.context() as patch:
        corrupting(patch, target, [5 * MIB + 3, SIZE - 1])
        found = shell.json("copy", "--state", "kept", "--verify", "full", "disk.raw", "copy.raw", status=1)
    assert found["event"] == "result" and found["verified"] is None
    assert found["wrong_ranges"] == [[5 * MIB, 5 * MIB + BLOCK], [SIZE - BLOCK, SIZE]]
    assert not same(disk, target)
    mended = shell.json("copy", "--since", "kept", "--verify", "full", "disk.raw", "copy.raw")
    assert mended["sent_bytes"] == 2 * BLOCK and same(disk, target)


def test_a_sample_finds_what_it_looks_at(shell: Shell, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # So few blocks that all are drawn.
    assert sample.DATA >= SIZE // BLOCK
    with monkeypatch.context() as patch:
        corrupting(patch, shell.folder / "copy.raw", [MIB])
        found = shell.json("copy", "--verify", "sample", "disk.raw", "copy.raw", status=1)
    assert found["wrong_ranges"] == [[MIB, MIB + BLOCK]]
    # What was found wrong stays, to be looked at.
    assert (shell.folder / "copy.raw").exists()


def test_what_a_sample_did_not_draw_is_found_once_it_fails(
    shell: Shell, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "DATA", 900)
    target = shell.folder / "copy.raw"
    with monkeypatch.context() as patch:
        corrupting(patch, target, [at * BLOCK for at in range(100, 200)])
        found = shell.json("copy", "--state", "kept", "--verify", "sample", "disk.raw", "copy.raw", status=1)
    assert found["wrong_ranges"] == [[100 * BLOCK, 200 * BLOCK]]
    mended = shell.json("copy", "--since", "kept", "disk.raw", "copy.raw")
    assert mended["sent_bytes"] == 100 * BLOCK and same(disk, target)


def test_an_unforeseen_failure_is_an_error_too(
    shell: Shell, disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def commit(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(MigrationState, "commit", commit)
    error = shell.json("copy", "disk.raw", "copy.raw", status=2)
    assert error["code"] == "internal" and "boom" in error["message"]
    assert "Traceback" in capsys.readouterr().err and not (shell.folder / "copy.raw").exists()
