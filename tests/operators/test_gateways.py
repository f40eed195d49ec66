"""Gateways of a wave run with the real service on them: shared, spread over two, and killed in the middle of a copy."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from operators import cleanup, gateway_watch, step, triggers
from operators.cleanup import CleanupOperator
from operators.full_copy import FullCopyOperator
from operators.hooks import agent_address, find_connection
from operators.places import SLOTS, Place, places
from operators.provision import ProvisionOperator
from operators.run import MigrationRun
from operators.spread import SpreadJobs
from storage_backends.alibaba import inventory
from storage_backends.base import Kind, Role, State, VolumeSpec
from tests.blocks import reader
from tests.operators.clouds import TEXT, agent, connection, crash, execute, file_of, real_gateways, run_context
from tests.operators.conftest import Comms
from wavelift.localcloud.server import LocalCloud
from wavelift.manifest.schema import Manifest
from wavelift.service.client import ServiceClient, ServiceError
from wavelift.service.jobs import JobState

MIB = 1 << 20


def manifest(*disks: int, bandwidth: str | None = None) -> Manifest:
    """A wave of migrations with so many disks each."""
    raw = yaml.safe_load(TEXT)
    (model,) = raw["migrations"]
    raw["migrations"] = [
        {
            **model,
            "name": f"m{number}",
            "source": {
                **model["source"],
                "disks": [{"id": f"d{index}", "boot": index == 0} for index in range(count)],
            },
        }
        for number, count in enumerate(disks)
    ]
    return Manifest.model_validate({**raw, "bandwidth": bandwidth})


@pytest.mark.parametrize(
    ("disks", "found"),
    [
        ((1,), [[(1, 3)]]),
        ((2, 2, 2, 2, 2), [[(1, 4)], [(1, 4)], [(1, 4)], [(1, 4)], [(2, 4)]]),
        # Ten replicas and ten clones take turns on a gateway of their own.
        ((2, 10, 2), [[(1, 4)], [(2, 16)], [(1, 4)]]),
        ((16, 17, 1), [[(1, 16)], [(2, 16), (3, 1)], [(3, 3)]]),
    ],
)
def test_the_manifest_says_where_disks_lie(disks: tuple[int, ...], found: list[list[tuple[int, int]]]) -> None:
    wave = manifest(*disks)
    where = [places(wave, migration.name) for migration in wave.migrations]
    assert [[(place.number, place.slots) for place in each] for each in where] == found
    used: dict[int, int] = {}
    for place in (place for each in where for place in each):
        used[place.number] = used.get(place.number, 0) + place.slots
    assert max(used.values()) <= SLOTS
    assert all(place.used == used[place.number] for each in where for place in each)


def test_another_vswitch_is_another_gateway() -> None:
    wave = manifest(2, 2)
    first, second = wave.migrations
    moved = second.model_copy(update={"target": second.target.model_copy(update={"vswitch": "vsw-other"})})
    wave = wave.model_copy(update={"migrations": [first, moved]})
    assert places(wave, "m0") == [Place(1, 4, 4)] and places(wave, "m1") == [Place(2, 4, 4)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCloud, Path]]:
    state = tmp_path_factory.mktemp("cloud")
    with real_gateways(state) as cloud:
        yield cloud, state


@pytest.fixture(autouse=True)
def quick(world: tuple[LocalCloud, Path], monkeypatch: pytest.MonkeyPatch, comms: Comms) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAVELIFT_CLOUD", connection(world[0]))
    monkeypatch.setattr(inventory, "_APPEAR_SECONDS", 0.3)
    monkeypatch.setattr(cleanup, "_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(triggers.WaitTrigger, "delay", 0.05)
    monkeypatch.setattr(triggers, "JOB_POLL_SECONDS", 0.05)
    monkeypatch.setattr(gateway_watch, "LOOK_SECONDS", 0.3)
    monkeypatch.setattr(step, "_PATIENCE_SECONDS", 0.1)


def context_of(wave: Manifest, migration: int, run_id: str) -> dict[str, Any]:
    return run_context(f"migrate__{wave.wave}__{wave.migrations[migration].name}", run_id)


def run_of(wave: Manifest, migration: int, run_id: str) -> MigrationRun:
    context: Any = context_of(wave, migration, run_id)
    return MigrationRun.of(wave, wave.migrations[migration], context)


def test_a_gateway_killed_in_the_middle_of_a_copy_is_replaced_and_the_copy_ends_well(
    world: tuple[LocalCloud, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud, state = world
    disks = {name: tmp_path / f"{name}.img" for name in ("d0", "d1")}
    for path in disks.values():
        path.write_bytes(os.urandom(24 * MIB))
    wave = manifest(2, bandwidth="4MB/s")
    context = context_of(wave, 0, "killed")
    run = run_of(wave, 0, "killed")
    with agent(tmp_path, disks) as connection_of_agent:
        monkeypatch.setenv("AIRFLOW_CONN_WAVELIFT_AGENT", connection_of_agent)
        backend = run.backend()
        provisioned = execute(ProvisionOperator, wave, context)
        (first,) = backend.gateways_used(run.gateway_labels(), run.labels())
        assert list(provisioned["gateways"]) == [first.id]
        # What the account may do was tried with a snapshot that is gone again.
        assert backend.list(run.labels(), Kind.SNAPSHOT) == []

        def kill() -> None:
            access = backend.gateway_access(first, run.labels())
            with ServiceClient(access.url, access.token, access.fingerprint) as client:
                while client.health()["packs_received"] < 2:
                    time.sleep(0.02)
            crash(cloud, first.id)
            with ServiceClient(*agent_address(find_connection("wavelift_agent"))) as client:
                assert client.job(run.job_key(1, "copy")).state is JobState.RUNNING
                client.request("PUT", f"/v1/migrations/{run.key}/limits", {"bandwidth": "1GB/s"})

        with ThreadPoolExecutor(1) as threads:
            killed = threads.submit(kill)
            record = execute(FullCopyOperator, wave, context)
            killed.result()
        (second,) = backend.gateways_used(run.gateway_labels(), run.labels())
        assert second.id != first.id and second.state is State.READY
        assert record["source_root"] == record["target_root"] and record["repairs"] == []
        for name, volume in provisioned["volumes"].items():
            with file_of(state, volume).open("rb") as file:
                assert file.read(24 * MIB) == disks[name].read_bytes(), name
        execute(CleanupOperator, wave, context)
    assert backend.list(run.labels()) == [] and backend.list(run.gateway_labels()) == []


def test_two_migrations_share_a_gateway_until_both_have_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "d0.img"
    disk.write_bytes(bytes(MIB))
    wave = manifest(1, 1)
    contexts = [context_of(wave, number, "shared") for number in (0, 1)]
    runs = [run_of(wave, number, "shared") for number in (0, 1)]
    assert runs[0].pool == runs[1].pool != run_of(wave, 0, "another").pool and runs[0].run != runs[1].run
    with agent(tmp_path, {"d0": disk}) as connection_of_agent:
        monkeypatch.setenv("AIRFLOW_CONN_WAVELIFT_AGENT", connection_of_agent)
        barrier = threading.Barrier(2)

        def provision(number: int) -> dict[str, Any]:
            barrier.wait()
            return execute(ProvisionOperator, wave, contexts[number], number)

        with ThreadPoolExecutor(2) as threads:
            made = list(threads.map(provision, (0, 1)))
        backend = runs[0].backend()
        (gateway,) = backend.list(runs[0].gateway_labels(), Kind.INSTANCE)
        assert [list(each["gateways"]) for each in made] == [[gateway.id]] * 2
        # One run's token is nothing to the other's jobs.
        with runs[0].gateway(backend) as service:
            spec = {
                "kind": "verify",
                "migration": runs[1].key,
                "generation": 1,
                "disks": [{"disk": "d0", "volume": made[1]["volumes"]["d0"], "size": MIB}],
            }
            with pytest.raises(ServiceError, match="This token is for migration"):
                service.submit(runs[1].job_key(1, "verify"), spec)
        first = execute(CleanupOperator, wave, contexts[0], 0)
        assert gateway.id not in first["deleted"]
        assert backend.get(Kind.INSTANCE, gateway.id).state is State.READY
        with runs[1].gateway(backend) as service:
            service.submit(runs[1].job_key(1, "verify"), spec)
        second = execute(CleanupOperator, wave, contexts[1], 1)
        assert second["deleted"][gateway.id] == "instance"
    assert backend.list(runs[0].gateway_labels()) == []


def test_seventeen_disks_lie_on_two_gateways_and_are_verified_as_one(world: tuple[LocalCloud, Path]) -> None:
    _, state = world
    wave = manifest(17)
    run = run_of(wave, 0, "seventeen")
    backend = run.backend()

    def make(disk: str) -> tuple[str, str]:
        volume = backend.create_volume(run.labels(Role.REPLICA, disk), VolumeSpec(1, "cloud_essd", "PL0"))
        with file_of(state, volume.id).open("r+b") as file:
            file.write(disk.encode() * 1000)
        return disk, volume.id

    with ThreadPoolExecutor(4) as threads:
        volumes = dict(threads.map(make, [disk.id for disk in run.disks]))
    spec = {
        "kind": "verify",
        "migration": run.key,
        "generation": 1,
        "disks": [{"disk": disk, "volume": volume, "size": MIB} for disk, volume in volumes.items()],
    }
    key = run.job_key(1, "verify")
    with run.gateway(backend) as service:
        assert isinstance(service, SpreadJobs)
        status = service.submit(key, spec)
        deadline = time.monotonic() + 20
        while not (status := service.job(key)).state.final:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert status.state is JobState.SUCCEEDED and status.result is not None
    assert [disk["disk"] for disk in status.result["disks"]] == list(volumes)
    roots = {disk: reader.disk_root(file_of(state, volume), MIB) for disk, volume in volumes.items()}
    assert {disk["disk"]: bytes.fromhex(disk["root"]) for disk in status.result["disks"]} == roots
    assert status.result["root"] == reader.generation_root(roots).hex()
    where = {disk: backend.gateway_of(volume).tag("number") for disk, volume in volumes.items()}
    assert where == {f"d{index}": "1" if index < SLOTS else "2" for index in range(17)}
    # The trigger asks both.
    trigger = triggers.JobTrigger.on_gateway(wave.cloud.model_dump(), run.labels(), run.gateway_labels(), key)
    assert asyncio.run(asyncio.wait_for(trigger.wait(), 20)) == {"job": key}
    # What else the run needs there takes the slots of those that it does not need now.
    clone = backend.create_volume(run.labels(Role.CLONE, "d0", 1), VolumeSpec(1, "cloud_essd", "PL0"))
    with run.gateways(backend).serving({"clone": clone.id}) as alone:
        assert isinstance(alone, ServiceClient)
        assert [volume["id"] for volume in alone.get("/v1/volumes")] == [clone.id]
    for gateway in run.gateways(backend).leave():
        assert gateway.tag("number") in {"1", "2"}
    assert backend.list(run.gateway_labels()) == []
    for volume in backend.list(run.labels(), Kind.VOLUME):
        backend.delete(volume)
