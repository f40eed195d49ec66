"""A volume's content onto another by a job of the gateway: bytes compared, tails, refusals, damage found."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from wavelift.blocks.readback import ReadBack
from wavelift.gateway import transfer as module
from wavelift.gateway.app import admit
from wavelift.gateway.readbacks import ReadBacks
from wavelift.gateway.transfer import TransferSpec, transfer
from wavelift.gateway.volumes import Volumes
from wavelift.service.errors import ForbiddenRequest
from wavelift.service.job_store import JobStore
from wavelift.service.jobs import JobState, JobStatus
from wavelift.service.runner import JobKind, JobRunner
from wavelift.service.tokens import Claims

MIB = 1 << 20
KEY = "web/2/transfer"
SPEC = {
    "kind": "transfer",
    "migration": "web",
    "generation": 2,
    "disks": [{"disk": "sda", "volume": "d-clone", "onto": "d-donor"}],
}


class Gateway:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "devices").mkdir()
        self.volumes = Volumes(folder / "devices", folder / "owners", ReadBacks(folder / "readbacks"))
        kinds: list[JobKind[Any]] = [JobKind("transfer", TransferSpec, partial(transfer, self.volumes))]
        self.runner = JobRunner(JobStore(folder / "jobs.db"), kinds)
        self.runner.start()

    def volume(self, name: str, size: int, parts: dict[int, bytes]) -> Path:
        path = self.folder / name
        with path.open("wb") as file:
            file.truncate(size)
            for offset, data in parts.items():
                file.seek(offset)
                file.write(data)
        (self.folder / "devices" / f"virtio-{name}").symlink_to(path)
        return path

    def run(self) -> JobStatus:
        self.runner.submit(KEY, SPEC)
        deadline = time.monotonic() + 20
        while not (job := self.runner.get(KEY)).state.final:
            assert time.monotonic() < deadline, job
            time.sleep(0.01)
        return job


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(tmp_path)
    yield made
    made.runner.stop()


def test_all_of_it_arrives_and_nothing_of_what_was_there_is_left(gateway: Gateway) -> None:
    parts = {0: os.urandom(MIB), 5 * MIB + 4096: os.urandom(3 * MIB), 20 * MIB: bytes(MIB) + b"end"}
    clone = gateway.volume("clone", 32 * MIB, parts)
    donor = gateway.volume("donor", 48 * MIB, {0: os.urandom(48 * MIB)})
    done = gateway.run()
    assert done.state is JobState.SUCCEEDED, done.error
    assert donor.read_bytes() == clone.read_bytes() + bytes(16 * MIB)
    assert done.result is not None and (done.result["volume"], done.result["size"]) == ("d-donor", 48 * MIB)
    assert done.progress.verified_bytes == 0 and done.progress.done_bytes == 48 * MIB
    # Whose packs came last no longer says what it holds.
    assert gateway.volumes.turns.taken("d-donor") == ("", 0, "")


def test_a_smaller_volume_is_refused_untouched(gateway: Gateway) -> None:
    gateway.volume("clone", 2 * MIB, {0: b"x"})
    donor = gateway.volume("donor", MIB, {0: b"kept"})
    done = gateway.run()
    assert done.error is not None and done.error.code == "volume_too_small"
    assert donor.read_bytes()[:4] == b"kept"


def test_what_does_not_read_back_fails_the_job(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.volume("clone", 2 * MIB, {0: b"x" * MIB})
    donor = gateway.volume("donor", 2 * MIB, {})

    class Damaging(ReadBack):
        def __init__(self, path: Path, size: int, **more: Any) -> None:
            if path == donor:
                with donor.open("r+b") as file:
                    file.seek(MIB + 7)
                    file.write(b"?")
            super().__init__(path, size, **more)

    monkeypatch.setattr(module, "ReadBack", Damaging)
    done = gateway.run()
    assert done.error is not None and done.error.code == "transfer_differs" and "d-donor" in done.error.message


def test_a_token_must_cover_both_volumes() -> None:
    def claims(*volumes: str) -> Claims:
        return Claims("web", "control", frozenset(volumes), 0)

    admit(claims(), KEY, SPEC)
    admit(claims("d-clone", "d-donor"), KEY, SPEC)
    for one in ("d-clone", "d-donor"):
        with pytest.raises(ForbiddenRequest):
            admit(claims(one), KEY, SPEC)
