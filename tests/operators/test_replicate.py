"""A generation whose read-back differs is repaired and read back again: real agent, gateway and jobs, driven as the
steps drive them. Only the cloud is left out: two volumes stand beside the gateway from the start."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from operators.mending import RootMismatch
from operators.replicate import Base, replicate
from operators.run import MigrationRun
from operators.snapshot import GenerationDoubted, SnapshotOperator
from operators.triggers import JobTrigger
from storage_backends.base import Labels
from tests.agent.conftest import MIB, MIGRATION, Stack, noise, same
from tests.agent.conftest import stack as _stack
from tests.operators.conftest import step
from wavelift.agent.state import MigrationState
from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.manifest.route import Route
from wavelift.service.client import ServiceClient
from wavelift.service.jobs import JobState

stack = _stack
BLOCK = 64 * 1024
SIZE = 8 * MIB


class Run:
    """What `replicate` asks of a run and of its backend."""

    key = MIGRATION
    committed = MigrationRun.committed
    bandwidth: ClassVar[dict[str, Any]] = {"limit": 90_000_000}

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.disks = [SimpleNamespace(id="sda"), SimpleNamespace(id="sdb")]
        self.migration = SimpleNamespace(source=SimpleNamespace(agent="agent"), route=Route.DIRECT)
        self.manifest = SimpleNamespace(cloud=SimpleNamespace(model_dump=dict))

    def backend(self) -> Run:
        return self

    def volume(self, _backend: object, disk: str) -> SimpleNamespace:
        return SimpleNamespace(id=f"d-{disk}")

    def job_key(self, generation: int, name: str) -> str:
        return f"{self.key}/{generation}/{name}"

    def labels(self) -> Labels:
        return Labels("demo", "web", "run")

    def gateway_labels(self) -> Labels:
        return Labels("demo", "all", "pool")

    @contextmanager
    def agent(self) -> Iterator[ServiceClient]:
        with self._stack.agent_client as client:
            yield client

    @contextmanager
    def gateway(self, _backend: object) -> Iterator[ServiceClient]:
        with self._stack.gateway_client as client:
            yield client

    def sink(self, volume: str, _labels: Labels, generation: int) -> SinkDescriptor:
        (disk,) = self._stack.spec(generation, sda=volume)["disks"]
        return SinkDescriptor.model_validate(disk["sink"])


class Replication:
    """Enters the step again and again, as Airflow does; `before` is called with the key of each job that is next."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._run: Any = Run(stack)

    def run(self, generation: int, base: Base | None, after: Callable[[str], None]) -> dict[str, Any]:
        seen: set[str] = set()
        deadline = time.monotonic() + 60
        while True:
            outcome = replicate(step(), self._run, generation, base, {})
            if isinstance(outcome, dict):
                return outcome
            assert isinstance(outcome, JobTrigger) and time.monotonic() < deadline
            key = outcome.job
            with self._stack.agent_client if "verify" not in key else self._stack.gateway_client as client:
                while client.job(key).state in (JobState.QUEUED, JobState.RUNNING):
                    time.sleep(0.02)
            if key not in seen:
                seen.add(key)
                after(key.removeprefix(f"{MIGRATION}/"))


@pytest.fixture
def volumes(stack: Stack) -> dict[str, Path]:
    for name in ("sda", "sdb"):
        stack.disk(name, SIZE, {0: noise(MIB)})
    found = {name: stack.volume(name, SIZE) for name in ("sda", "sdb")}
    stack.start()
    return found


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 4]))


def test_a_damaged_volume_is_repaired_and_the_record_says_so(stack: Stack, volumes: dict[str, Path]) -> None:
    jobs: list[str] = []

    def after(job: str) -> None:
        jobs.append(job.partition("-")[0])
        if job == "1/copy":
            flip(volumes["sdb"], 3 * BLOCK + 5)

    record = Replication(stack).run(1, None, after)
    assert jobs == ["1/copy", "1/verify", "1/repair", "1/verify"]
    assert record["generation"] == 1 and record["source_root"] == record["target_root"]
    (repair,) = record["repairs"]
    (disk,) = repair["disks"]
    assert (disk["disk"], disk["differing"]) == ("sdb", [{"offset": 3 * BLOCK, "length": BLOCK}])
    assert all(same(stack.disks[name], path) for name, path in volumes.items())
    with stack.agent_client as client:
        assert client.get(f"/v1/migrations/{MIGRATION}")["generation"] == 1
        # The last job was the repair.
        assert client.get(f"/v1/migrations/{MIGRATION}/limits")["limit"] == 90_000_000


def test_where_the_source_moved_on_the_next_generation_takes_its_place(stack: Stack, volumes: dict[str, Path]) -> None:
    jobs: list[str] = []

    def after(job: str) -> None:
        jobs.append(job.partition("-")[0])
        if job == "1/copy":
            flip(volumes["sda"], 0)
            flip(stack.disks["sda"], 100)

    record = Replication(stack).run(1, None, after)
    assert jobs == ["1/copy", "1/verify", "1/repair", "2/copy", "2/verify"]
    assert record["generation"] == 2 and record["repairs"][0]["disks"][0]["pending_bytes"] == BLOCK
    assert all(same(stack.disks[name], path) for name, path in volumes.items())
    after_it = Replication(stack).run(3, Base(record["generation"], {}), jobs.append)
    assert (after_it["generation"], after_it["repairs"], after_it["sent_bytes"]) == (3, [], 0)


def test_a_volume_that_loses_what_it_is_given_fails_the_step_with_disk_and_offset(
    stack: Stack, volumes: dict[str, Path]
) -> None:
    def after(job: str) -> None:
        if "verify" not in job:
            flip(volumes["sda"], 7 * BLOCK)

    with pytest.raises(RootMismatch) as caught:
        Replication(stack).run(1, None, after)
    said = caught.value.message
    assert "after 2 repairs" in said and f"sda (d-sda): {BLOCK} bytes, first at {7 * BLOCK}" in said
    assert "kernel log" in caught.value.remedy


def test_no_snapshot_is_taken_of_a_generation_that_its_volumes_are_known_not_to_hold(stack: Stack) -> None:
    stack.disk("sda", SIZE, {0: noise(MIB)})
    stack.volume("sda", SIZE)
    stack.start()
    stack.replicate(1, sda="d-sda")
    MigrationState(stack.folder / "ag", MIGRATION).doubt(1, {"sda": [(0, BLOCK)]})
    run: Any = Run(stack)
    context: Any = {}
    with pytest.raises(GenerationDoubted, match="65536 bytes of generation 1"):
        step(SnapshotOperator).advance(run, context, None)
