"""What stays after a run: the rules as a table, and a real cloud swept by them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from operators import cleanup
from operators.cleanup import CleanupOperator, _is_kept
from operators.run import MigrationRun
from storage_backends.base import InstanceSpec, Kind, Labels, Resource, Role, State, VolumeSpec
from tests.operators.conftest import MANIFEST, Comms, Service
from tests.storage_backends.contract.conftest import MASTER, fill
from wavelift.localcloud.server import LocalCloud
from wavelift.manifest.route import Route
from wavelift.manifest.schema import Archive, Keep

ALL = frozenset(Keep)
# What it is, and which word of `keep` keeps it (None: nothing does) in a run whose newest generation is 3.
RULES = [
    (Kind.INSTANCE, Role.TARGET, 3, Keep.INSTANCE),
    (Kind.IMAGE, Role.PREPARED, 3, Keep.IMAGE),
    (Kind.SNAPSHOT, Role.PREPARED, 3, Keep.IMAGE),
    (Kind.SNAPSHOT, Role.REPLICA, 3, Keep.SNAPSHOTS),
    (Kind.SNAPSHOT, Role.REPLICA, 2, None),
    (Kind.SNAPSHOT, Role.REPLICA, 30, None),
    (Kind.VOLUME, Role.REPLICA, None, Keep.VOLUMES),
    (Kind.VOLUME, Role.CLONE, 3, None),
    (Kind.SNAPSHOT, Role.CLONE, 3, None),
    (Kind.INSTANCE, Role.GATEWAY, None, None),
    (Kind.VOLUME, None, None, None),
]


@pytest.mark.parametrize(("kind", "role", "generation", "word"), RULES)
def test_one_word_keeps_each_thing_and_no_other_does(
    kind: Kind, role: Role | None, generation: int | None, word: Keep | None
) -> None:
    tags = Labels("w", "m", "r", role, "data", generation).tags()
    resource = Resource(kind, "x", State.READY, "Available", tags=tags)
    for keep in ALL:
        assert _is_kept(resource, {keep}, 3) == (keep is word), keep
    assert _is_kept(resource, set(ALL), 3) == (word is not None)
    assert not _is_kept(resource, set(), 3)


@pytest.fixture
def made(service: Service, cloud: LocalCloud, context: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One of everything that a run makes, and a volume of another run."""
    monkeypatch.setattr(cleanup, "_PAUSE_SECONDS", 0.1, raising=False)
    run = MigrationRun.of(MANIFEST, MANIFEST.migrations[0], context)
    backend = run.backend()
    small = VolumeSpec(1, "cloud_essd", "PL0")

    def ready(resource: Resource) -> Resource:
        while (now := backend.get(resource.kind, resource.id)).state is State.PENDING:
            time.sleep(0.05)
        return now

    gateway = backend.use_gateway(run.gateway_labels(1), "vsw-local-a", 4, run.labels())
    things = {"gateway": gateway}
    for disk in ("system", "data"):
        volume = backend.create_volume(run.labels(Role.REPLICA, disk), small)
        backend.attach(volume.id, gateway.id)
        things[f"replica {disk}"] = volume
        for generation in (1, 2) if disk == "data" else (2,):
            taken = backend.snapshot(volume.id, run.labels(Role.REPLICA, disk, generation))
            things[f"generation {generation} {disk}"] = ready(taken)
    clone = backend.clone(things["generation 2 system"], run.labels(Role.CLONE, "system", 2), small)
    backend.attach(clone.id, gateway.id)
    prepared = ready(backend.snapshot(clone.id, run.labels(Role.PREPARED, "system", 2)))
    image = ready(backend.create_image(run.labels(Role.PREPARED, generation=2), [prepared]))
    spec = InstanceSpec("host-linux", "ecs.c7.large", "vsw-local-a", "sg-local-default", "cloud_essd", 40)
    target = ready(backend.run_instance(run.labels(Role.TARGET, generation=2), spec))
    things |= {"clone": clone, "prepared": prepared, "image": image, "target": target}
    foreign = backend.create_volume(Labels("demo", "web", f"not-{run.run}", Role.REPLICA, "data"), small)
    yield SimpleNamespace(run=run, backend=backend, things=things, foreign=foreign)
    backend.delete(foreign)


def sweep(made: Any, context: Any, boot_verify: str) -> dict[str, Any]:
    states = {context["run_id"]: {"boot_verify": boot_verify}}
    context["ti"].get_task_states = lambda **_: states
    migration = made.run.migration
    assert set(migration.keep) == {Keep.INSTANCE, Keep.IMAGE, Keep.SNAPSHOTS}
    operator = CleanupOperator(task_id="cleanup", manifest=MANIFEST, migration=migration)
    return operator.execute(context)


def test_a_verified_run_leaves_what_the_manifest_keeps(made: Any, context: Any) -> None:
    result = sweep(made, context, "success")
    kept = {"target", "image", "prepared", "generation 2 system", "generation 2 data"}
    left = {each.id for each in made.backend.list(made.run.labels())}
    assert left == {made.things[name].id for name in kept} == {each["id"] for each in result["kept"]}
    assert set(result["deleted"]) == {each.id for name, each in made.things.items() if name not in kept}
    # Again, as after a killed worker: nothing is left to do.
    assert sweep(made, context, "success") == {"deleted": {}, "kept": result["kept"]}
    assert made.backend.get(Kind.VOLUME, made.foreign.id).state is State.READY


def test_a_run_that_was_not_verified_leaves_nothing(made: Any, context: Any, service: Service) -> None:
    # An agent that is gone keeps nothing alive in the cloud.
    service.down()
    try:
        result = sweep(made, context, "upstream_failed")
    finally:
        service.up()
    assert result == {"deleted": {each.id: each.kind.value for each in made.things.values()}, "kept": []}
    assert made.backend.list(made.run.labels()) == []
    assert made.backend.get(Kind.VOLUME, made.foreign.id).state is State.READY


@pytest.mark.parametrize("read_back", [True, False])
def test_archives_that_were_read_back_outlive_a_later_failure(
    service: Service, comms: Comms, context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_back: bool
) -> None:
    monkeypatch.setattr(cleanup, "_PAUSE_SECONDS", 0.1)
    disks = tmp_path / "disks"
    disks.mkdir()
    extra = {"folders": str(disks), "master_secret": MASTER.hex()}
    monkeypatch.setenv("AIRFLOW_CONN_ARCHIVES", json.dumps({"conn_type": "wavelift_offline", "extra": extra}))
    (web,) = MANIFEST.migrations
    only = web.model_copy(update={"route": Route.ARCHIVE_ONLY})
    manifest = MANIFEST.model_copy(update={"archive": Archive(connection="archives"), "migrations": [only]})
    run = MigrationRun.of(manifest, only, context)
    backend: Any = run.archive()
    for disk in run.disks:
        volume = backend.create_volume(run.labels(Role.REPLICA, disk.id), VolumeSpec(1, "archive"))
        fill(backend, volume.id)
        if read_back:
            backend.snapshot(volume.id, run.labels(Role.REPLICA, disk.id, 1))
    there = {each.id for each in backend.list(run.labels())}
    context["ti"].get_task_states = lambda **_: {context["run_id"]: {"incremental_loop": "failed"}}
    result = CleanupOperator(task_id="cleanup", manifest=manifest, migration=only).execute(context)
    assert {each["id"] for each in result["kept"]} == (there if read_back else set())
    assert set(result["deleted"]) == (set() if read_back else there)
