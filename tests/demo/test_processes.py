"""A stack leaves no process behind, whatever its parts started and however they end."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from demo.processes import StackError, Started, first_json_line, start, stop

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{}', flush=True); time.sleep(600)"
)


def run(tmp_path: Path, code: str) -> Started:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    return start("part", [sys.executable, "-u", "-c", code], os.environ, tmp_path / "log" / "part.log", work)


def wait_for_children(pid: int) -> list[psutil.Process]:
    deadline = time.monotonic() + 10
    while not (children := psutil.Process(pid).children(recursive=True)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return children


def test_a_part_that_ends_when_asked_is_not_killed(tmp_path: Path) -> None:
    part = run(tmp_path, "import time; print('{}', flush=True); time.sleep(600)")
    first_json_line(part)
    assert stop([part], leftovers_under=tmp_path / "work") == []
    assert not part.alive()


def test_children_in_the_parts_session_end_with_it(tmp_path: Path) -> None:
    part = run(tmp_path, f"import subprocess, sys; subprocess.run([sys.executable, '-uc', {STUBBORN!r}])")
    (child,) = wait_for_children(part.pid)
    first_json_line(part)
    killed = stop([part], leftovers_under=tmp_path / "elsewhere")
    assert killed == [f"part ({child.pid})"]
    assert not child.is_running()


def test_what_left_the_session_is_found_by_its_folder(tmp_path: Path) -> None:
    leave = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    part = run(tmp_path, f"{leave}; import time; print('{{}}'); time.sleep(600)")
    first_json_line(part)
    (child,) = wait_for_children(part.pid)
    stop([part], leftovers_under=tmp_path / "work")
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_part_that_does_not_start_is_explained(tmp_path: Path) -> None:
    part = run(tmp_path, "raise SystemExit('no port is free')")
    with pytest.raises(StackError, match=r"part did not start.*\n.*no port is free"):
        first_json_line(part)
    stop([part], leftovers_under=tmp_path / "work")


def test_a_number_used_again_is_not_taken_for_the_part(tmp_path: Path) -> None:
    mine = psutil.Process()
    assert not Started("other", mine.pid, mine.create_time() - 100, "").alive()
