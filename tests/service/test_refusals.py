"""A service that cannot serve says so: by its health, and when it is started with what cannot be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.test_service import Harness
from wavelift.service.client import ServiceError


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(tmp_path)
    yield harness
    harness.close()


def test_health_fails_when_the_jobs_are_gone_and_is_good_when_they_are_back(harness: Harness, tmp_path: Path) -> None:
    assert harness.client.health()["status"] == "ok"
    (tmp_path / "jobs.db").rename(tmp_path / "moved")
    with pytest.raises(ServiceError) as gone:
        harness.client.health()
    assert (gone.value.http_status, gone.value.code) == (503, "not_serving") and "is gone" in gone.value.message
    (tmp_path / "jobs.db").touch()
    with pytest.raises(ServiceError):
        harness.client.health()
    (tmp_path / "moved").rename(tmp_path / "jobs.db")
    assert harness.client.health()["status"] == "ok"


def test_health_fails_when_nobody_would_run_a_job(harness: Harness) -> None:
    harness.runner.stop()
    with pytest.raises(ServiceError) as ended:
        harness.client.health()
    assert ended.value.http_status == 503 and "job-0" in ended.value.message


def test_a_number_of_an_event_that_cannot_be_is_refused(harness: Harness) -> None:
    assert harness.client.get(f"/v1/events?after={2**63 - 1}")["events"] == []
    with pytest.raises(ServiceError) as refused:
        harness.client.get(f"/v1/events?after={2**63}")
    assert (refused.value.http_status, refused.value.code) == (422, "invalid")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--listen", "127.0.0.1:99999"), "'127.0.0.1:99999' is not HOST:PORT"),
        (("--listen", "127.0.0.1:\u00b2"), "is not HOST:PORT"),
        (("--listen", "no-such-host.invalid:0"), "Name an address of this machine"),
        (("--token-file", "binary"), "binary is not text"),
        (("--max-memory", "40"), "40 MiB is too little"),
        (("--max-memory", "-5"), "-5 MiB is too little"),
        (("--connections", "0"), "0 is not in 1 to 64"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(tmp_path: Path, arguments: tuple[str, str], words: str) -> None:
    (tmp_path / "secret").write_text("s" * 32)
    (tmp_path / "binary").write_bytes(b"\xff" * 32)
    command = [sys.executable, "-m", "wavelift.cli.main", "agent", "--state", "state", "--token-file", "secret"]
    done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
