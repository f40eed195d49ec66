"""Generations on every route, with real agent, gateway, jobs and archives: what arrives, what is mended on the way, and
what a step does that is entered again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from storage_backends.errors import BackendError
from tests.agent.at_rest import held
from tests.agent.conftest import MIB, Stack, same
from tests.operators.routes import (
    BLOCK,
    DISKS,
    MASTER,
    SIZE,
    Record,
    Run,
    Site,
    archives_in,
    base_of,
    flip,
    named,
    overwrite,
)
from wavelift.archive.layout import ABOUT
from wavelift.localcloud.server import LocalCloud
from wavelift.manifest.route import Carrier, Route
from wavelift.service.client import ServiceError

# What these do is, each by itself, what others do as well.
OTHERS = [pytest.param(each, marks=pytest.mark.slow) for each in (Route.SEED_OFFLINE_THEN_OSS, Route.ARCHIVE_ONLY)]
Damage = Callable[[Run, int, str], None]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("routes"))
    for disk in DISKS:
        made.disk(disk, SIZE)
    yield made.start()
    made.stop()


@pytest.fixture(scope="module")
def site(stack: Stack, local_cloud: LocalCloud) -> Site:
    return Site(stack, local_cloud)


@pytest.fixture(autouse=True)
def connection(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"conn_type": "wavelift_offline", "extra": {"master_secret": MASTER.hex()}}
    monkeypatch.setenv("AIRFLOW_CONN_WAVELIFT_OFFLINE", json.dumps(said))


def arrived(site: Site, run: Run, record: Record) -> None:
    """What was read is what is there at the end of the way."""
    assert record["source_root"] == record["target_root"]
    for disk in DISKS:
        if run.route.lands:
            assert same(site.stack.disks[disk], run.volumes[disk]), disk
        else:
            assert held(run.opened(Carrier.BUCKET, disk), record["generation"]) == site.stack.disks[disk].read_bytes()


def seed(site: Site, run: Run) -> Record:
    """The full copy; disks are shipped as soon as they were checked."""
    return site.advance(run, 1, None, lambda job: run.ship() if named(job) == "1/check" and run.route.seeded else None)


@pytest.mark.parametrize("route", [Route.VIA_OSS, Route.SEED_OFFLINE_THEN_DIRECT, *OTHERS])
def test_three_generations_arrive_and_a_step_entered_again_changes_nothing(site: Site, route: Route) -> None:
    run = site.run(route)
    record = seed(site, run)
    records = [record]
    arrived(site, run, record)
    for generation in (2, 3):
        site.write("sda", generation * MIB, 3, generation)
        site.write("sdb", 6 * MIB, 1, generation)
        base = base_of(record)
        record = site.advance(run, generation, base)
        arrived(site, run, record)
        records.append(record)
        assert record["repairs"] == [] and record["sent_bytes"] == 4 * BLOCK
    assert [each["carrier"] for each in records] == [route.carrier(each) for each in (1, 2, 3)]
    jobs = site.jobs(run)
    # Submitted again with each entry, with keys of another session each time, and begun once.
    assert set(jobs.values()) == {1}
    if route.uses_archive:
        lent = {run.opened(Carrier.BUCKET, "sda").access_key_id for _ in range(2)}  # type: ignore[union-attr]
        assert len(lent) == 2
    with run.agent() as agent:
        assert agent.get(f"/v1/migrations/{run.key}")["generation"] == 3
        checks = [job.result for job in agent.jobs() if f"{run.key}/3/check" in job.key]
    # What former generations brought was checked then.
    assert [disk["read"] for found in checks if found for disk in found["disks"]] == [[3]] * 2 * (not run.route.lands)
    # As a cleared task does, and a retry after a worker was killed.
    again = site.advance(run, 3, base, lambda job: pytest.fail(f"{job} was waited for"))
    assert again == record and site.jobs(run) == jobs
    assert site.advance(run, 1, None, lambda job: pytest.fail(f"{job} was waited for")) == records[0]
    assert site.jobs(run) == jobs


@pytest.mark.parametrize(
    ("route", "generation", "damage"),
    [
        pytest.param(Route.VIA_OSS, 2, Run.lose, marks=pytest.mark.slow),
        (Route.SEED_OFFLINE_THEN_DIRECT, 1, Run.spoil),
        (Route.SEED_OFFLINE_THEN_OSS, 1, Run.lose),
        pytest.param(Route.SEED_OFFLINE_THEN_OSS, 2, Run.spoil, marks=pytest.mark.slow),
        (Route.ARCHIVE_ONLY, 2, Run.lose),
    ],
)
def test_what_an_archive_has_lost_is_brought_by_the_next_generation(
    site: Site, route: Route, generation: int, damage: Damage
) -> None:
    run = site.run(route)
    base = None if generation == 1 else base_of(seed(site, run))
    site.write("sdb", 6 * MIB, 2, 5)

    def after(job: str) -> None:
        if job == f"{generation}/copy":
            damage(run, generation, "sdb")
        if named(job) == "1/check" and run.route.seeded:
            run.ship()

    record = site.advance(run, generation, base, after)
    arrived(site, run, record)
    (repair,) = record["repairs"]
    (disk,) = repair["disks"]
    assert record["generation"] == generation + 1 and repair["generation"] == generation
    assert disk["disk"] == "sdb" and disk["pending_bytes"] >= BLOCK
    # Snapshots may be waited for after the commit: then all this is entered once more.
    jobs = site.jobs(run)
    assert site.advance(run, generation, base) == record and site.jobs(run) == jobs


RECORD, LIST, MAP, TABLES = "generations/{}", "generations/{}.packs", "maps/{}.map", "maps/segments/"
# One of each route, of each object, of a generation that was built on and of the one under way.
EVERYDAY = (
    (Route.VIA_OSS, 2, 2, Run.lose_object, LIST),
    (Route.VIA_OSS, 2, 1, Run.spoil_object, MAP),
    (Route.SEED_OFFLINE_THEN_DIRECT, 1, 1, Run.spoil_object, RECORD),
    (Route.ARCHIVE_ONLY, 2, 1, Run.lose_object, TABLES),
)


@pytest.mark.parametrize(
    ("route", "generation", "of", "damage", "beginning"),
    [
        pytest.param(*case, beginning, marks=() if (*case, beginning) in EVERYDAY else pytest.mark.slow)
        for case in (
            (route, generation, of, damage)
            for route, generation, of in (
                (Route.VIA_OSS, 2, 2),
                (Route.VIA_OSS, 2, 1),
                (Route.SEED_OFFLINE_THEN_DIRECT, 1, 1),
                (Route.ARCHIVE_ONLY, 2, 2),
                (Route.ARCHIVE_ONLY, 2, 1),
            )
            for damage in (Run.lose_object, Run.spoil_object)
        )
        for beginning in (RECORD, LIST, MAP, TABLES)
        # A disk without the record may be another one: see the disks that take longer.
        if not (case[0].seeded and case[3] is Run.lose_object and beginning == RECORD)
    ],
)
def test_an_archive_that_cannot_tell_what_it_holds_is_begun_afresh(
    site: Site, route: Route, generation: int, of: int, damage: Callable[[Run, int, str, str], None], beginning: str
) -> None:
    run = site.run(route)
    base = None if generation == 1 else base_of(seed(site, run))
    key = beginning.format(of)
    if of < generation:
        damage(run, of, "sda", key)
    site.write("sdb", 6 * MIB, 2, 5)

    def after(job: str) -> None:
        # Disks are damaged on their way.
        if named(job) == ("1/check" if route.seeded else f"{generation}/copy"):
            if of == generation:
                damage(run, of, "sda", key)
            if route.seeded:
                run.ship()

    record = site.advance(run, generation, base, after)
    arrived(site, run, record)
    # What comes after stands on it.
    site.write("sda", 6 * MIB, 2, 6)
    again = site.advance(run, record["generation"] + 1, base_of(record))
    arrived(site, run, again)
    assert again["repairs"] == []


@pytest.mark.parametrize("damage", [Run.lose_object, Run.spoil_object], ids=["lost", "spoiled"])
def test_an_archive_without_its_first_object_is_named_or_made_anew(
    site: Site, damage: Callable[[Run, int, str, str], None]
) -> None:
    run = site.run(Route.VIA_OSS)
    base = base_of(seed(site, run))
    site.write("sdb", 6 * MIB, 2, 5)
    damage(run, 1, "sda", ABOUT)
    if damage is Run.spoil_object:
        with pytest.raises(BackendError, match=f"{ABOUT} of oss://.* cannot be used") as caught:
            site.advance(run, 2, base)
        assert "delete it" in caught.value.remedy
        run.lose_object(1, "sda", ABOUT)
    arrived(site, run, site.advance(run, 2, base))


@pytest.mark.parametrize(
    ("route", "generation"),
    [
        pytest.param(Route.VIA_OSS, 2, marks=pytest.mark.slow),
        (Route.SEED_OFFLINE_THEN_DIRECT, 1),
        (Route.SEED_OFFLINE_THEN_OSS, 2),
    ],
)
def test_a_volume_that_changed_after_it_was_hydrated_is_mended(site: Site, route: Route, generation: int) -> None:
    run = site.run(route)
    base = None if generation == 1 else base_of(seed(site, run))
    site.write("sdb", 6 * MIB, 2, 6)

    def after(job: str) -> None:
        if named(job) == f"{generation}/hydrate" and "-0" in job:
            flip(run.volumes["sda"], 3 * BLOCK + 5)
            flip(run.volumes["sdb"], 6 * MIB + 5)
        if job.startswith("1/check-") and run.route.seeded:
            run.ship()

    record = site.advance(run, generation, base, after)
    arrived(site, run, record)
    assert record["repairs"]
    jobs = site.jobs(run)
    assert site.advance(run, generation, base) == record and site.jobs(run) == jobs


@pytest.mark.slow
def test_scattered_blocks_that_an_archive_has_lost_are_all_that_is_sent_again(site: Site) -> None:
    size = 2 * SIZE
    run = site.run(Route.VIA_OSS, size)
    site.write("sda", 0, size // BLOCK, 8)
    base = base_of(seed(site, run))
    # Each by itself.
    for block in range(0, size // BLOCK, 2):
        site.write("sda", block * BLOCK, 1, block)
    record = site.advance(run, 2, base, lambda job: run.lose(2, "sda") if job == "2/copy" else None)
    arrived(site, run, record)
    (repair,) = record["repairs"]
    assert repair["disks"][0]["pending_bytes"] == size // 2


@pytest.mark.parametrize("mixed", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_gateway_that_was_replaced_within_an_increment_goes_on(site: Site, mixed: bool) -> None:
    run = site.run(Route.VIA_OSS)
    base = base_of(seed(site, run))
    site.write("sda", 2 * MIB, 3, 7)

    def after(job: str) -> None:
        if named(job) == "2/hydrate" and job.endswith("-0") and not replaced:
            replaced.append(job)
            site.replace_gateway()
            if mixed:
                # It had not come to this.
                overwrite(run.volumes["sda"], 2 * MIB, bytes(BLOCK))

    replaced: list[str] = []
    record = site.advance(run, 2, base, after)
    arrived(site, run, record)
    assert len(record["repairs"]) == mixed


def test_a_connection_that_is_changed_in_the_middle_costs_nothing(site: Site) -> None:
    run = site.run(Route.VIA_OSS)
    changed = []

    def after(job: str) -> None:
        if named(job) in ("1/copy", "1/hydrate"):
            # The next entry submits the job again, as it does after a retry.
            host = ("localhost", "127.0.0.1")[len(changed)]
            changed.append(job)
            endpoint = site.cloud.oss_endpoint.replace("127.0.0.1", host)
            run._archives = archives_in(site.cloud, f"http://{endpoint}")

    arrived(site, run, site.advance(run, 1, None, after))
    assert len(changed) == 2 and set(site.jobs(run).values()) == {1}


def test_disks_that_take_longer_than_was_thought_are_waited_for_again(site: Site) -> None:
    run = site.run(Route.SEED_OFFLINE_THEN_DIRECT)
    run.offline = run.offline.model_copy(update={"arrival": 0.0})
    with pytest.raises(ServiceError) as caught:
        site.advance(run, 1, None)
    assert caught.value.code in ("no_archive", "io", "store_unavailable", "disk_missing"), caught.value
    # Somebody corrects the manifest and clears the task.
    run.offline = run.offline.model_copy(update={"arrival": 60.0})
    run.ship()
    arrived(site, run, site.advance(run, 1, None))
