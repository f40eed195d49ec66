"""Generations that an agent puts to archives: in a bucket, on disks that travel, and on to a volume from there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oss2
import pytest

from tests.localcloud.conftest import KEY, REGION, SECRET
from tests.stores.disks import AS_ROOT, disk
from wavelift.agent.journal import UNDURABLE, acknowledged
from wavelift.archive.archive import Archive
from wavelift.archive.descriptor import BucketArchive
from wavelift.archive.opening import open_archive
from wavelift.archive.sweep import sweep
from wavelift.localcloud.faults.rules import Rule
from wavelift.localcloud.server import LocalCloud, Options
from wavelift.service.client import ServiceClient, ServiceError
from wavelift.service.jobs import JobState

from ..sources.test_qemu import Machine
from .at_rest import BUCKET, PACK, bucket_of, checked, disks_of, fill, held, packs, spec, with_session
from .conftest import MIB, MIGRATION, Stack, noise, same, succeeded, wait
from .test_kills import Writer, root_of

BLOCK = 64 * 1024
SIZE = 24 * MIB
COPY = f"{MIGRATION}/1/copy"
DENY = {"kind": "forbidden"}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path_factory.mktemp("cloud"), {KEY: SECRET}, Options(grace=1.0)) as running:
        url = f"http://{running.oss_endpoint}"
        oss2.Bucket(oss2.AuthV4(KEY, SECRET), url, BUCKET, region=REGION, is_path_style=True).create_bucket()
        yield running


@pytest.fixture
def faults(cloud: LocalCloud) -> Iterator[LocalCloud]:
    yield cloud
    cloud.faults.reset()


def change(path: Path, *blocks: int, seed: int = 9) -> None:
    with path.open("r+b") as file:
        for block in blocks:
            file.seek(block * BLOCK)
            file.write(noise(BLOCK, seed + block))


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def journaled(stack: Stack, generation: int = 1) -> int:
    """Bytes of disk that the agent knows to be where they should."""
    journal = stack.folder / f"ag/migrations/{MIGRATION}/work/{generation}/journal"
    return sum(tally.done.total for tally in acknowledged(journal, 1))


def await_half(stack: Stack, client: ServiceClient, generation: int = 1) -> None:
    key = f"{MIGRATION}/{generation}/copy"
    while journaled(stack, generation) < 4 * PACK:
        assert client.job(key).state in (JobState.QUEUED, JobState.RUNNING)


def at_most_once(sent: int, content: int) -> None:
    """What was put, by all attempts: what was not in the journal when one died comes again."""
    assert content < sent <= content * 1.01 + (5 + UNDURABLE) * PACK


def test_a_full_copy_and_two_increments_in_a_bucket(stack: Stack, cloud: LocalCloud) -> None:
    """Of two disks, sealed, each in an archive of its own."""
    data = noise(8 * MIB)
    paths = {"sda": stack.disk("sda", SIZE, {0: data}), "sdb": stack.disk("sdb", 4 * MIB, {MIB: b"text " * BLOCK})}
    archives = {name: bucket_of(cloud, f"three/{name}") for name in paths}
    stack.start()
    wire, found = [], None
    for generation in (1, 2, 3):
        base = generation - 1 or None
        result = fill(stack, generation, base, **archives)
        assert result["base_used"] == base and result["notes"] == []
        assert result["root"] == root_of({name: path.read_bytes() for name, path in paths.items()})
        for each in result["disks"]:
            put = packs(archives[each["disk"]], generation)
            assert each["archive"] == {"generation": generation, "packs": len(put), "pack_bytes": sum(put)}
            assert held(archives[each["disk"]], generation) == paths[each["disk"]].read_bytes()
        with stack.agent_client as client:
            found = checked(client, generation, base=found, **archives)
            progress = client.job(f"{MIGRATION}/{generation}/check").progress
            assert progress.done_bytes == progress.total_bytes == sum(each["checked_bytes"] for each in found["disks"])
        assert (found["root"], found["lost_bytes"]) == (result["root"], 0)
        for each in found["disks"]:
            put = packs(archives[each["disk"]], generation)
            assert (each["read"], each["packs"], each["checked_bytes"]) == ([generation], len(put), sum(put))
        wire.append([each["wire_bytes"] for each in result["disks"]])
        stack.commit(generation)
        change(paths["sda"], 3, 200, seed=generation)
    assert 8 * MIB < wire[0][0] < 8.2 * MIB and wire[0][1] < MIB, "compressed where it pays"
    assert [2 * BLOCK < each[0] < 2.1 * BLOCK and each[1] == 0 for each in wire[1:]] == [True, True]
    whole = b"".join(open_archive(archives["sda"]).bare.get(entry.key) for entry in _objects(archives["sda"]))
    assert data[:16] not in whole and b"WLMAP" not in whole


def _objects(descriptor: Any) -> list[Any]:
    return list(open_archive(descriptor).bare.list(""))


def test_a_killed_copy_goes_on_in_the_archive(stack: Stack, cloud: LocalCloud) -> None:
    path = stack.disk("sda", SIZE, {0: noise(SIZE)})
    archive = bucket_of(cloud, "killed")
    stack.start()
    with stack.agent_client as client:
        client.submit(COPY, spec(1, None, {"sda": archive}, "8MB/s"))
        await_half(stack, client)
    stack.agent.kill()
    stack.agent.start()
    with stack.agent_client as client:
        client.submit(COPY, spec(1, None, {"sda": archive}))
        result = succeeded(client, COPY)
        assert checked(client, 1, sda=archive)["root"] == result["root"] == root_of({"sda": path.read_bytes()})
    at_most_once(sum(packs(archive, 1)), SIZE)
    assert held(archive, 1) == path.read_bytes()


def test_another_moment_costs_an_archive_no_more_than_what_changed(stack: Stack, cloud: LocalCloud) -> None:
    """A volume would have to be filled anew: it may hold anything of the attempt before."""
    path = stack.disk("sda", SIZE, {0: noise(SIZE)})
    archive = bucket_of(cloud, "moved-on")
    stack.start()
    fill(stack, 1, None, sda=archive)
    stack.commit(1)
    change(path, *range(0, 384, 2))
    key = f"{MIGRATION}/2/copy"
    with stack.agent_client as client:
        client.submit(key, spec(2, 1, {"sda": archive}, "6MB/s"))
        await_half(stack, client, 2)
    stack.agent.kill()
    change(path, 4, 5, seed=77)
    stack.agent.start()
    with stack.agent_client as client:
        client.submit(key, spec(2, 1, {"sda": archive}))
        result = succeeded(client, key)
    assert result["base_used"] == 1 and "sent afresh" in result["notes"][0]
    assert result["disks"][0]["sent_bytes"] == 193 * BLOCK
    assert held(archive, 2) == path.read_bytes()


def test_a_killed_copy_of_a_live_guest_goes_on_with_what_an_earlier_attempt_put(stack: Stack, tmp_path: Path) -> None:
    guest = Machine(tmp_path, a=SIZE)
    try:
        Writer(guest, {}, 1).fill("a", 0, SIZE)
        stack.disks["a"] = Path(f"qmp:{guest.monitor}?node=a")
        (tmp_path / "seed").mkdir()
        archive = disks_of(tmp_path / "seed")
        stack.start()
        with stack.agent_client as client:
            client.submit(COPY, spec(1, None, {"a": archive}, "8MB/s"))
            await_half(stack, client)
        stack.agent.kill()
        guest.io("a", f"write -P 7 {5 * BLOCK} {BLOCK}")
        stack.agent.start()
        with stack.agent_client as client:
            client.submit(COPY, spec(1, None, {"a": archive}))
            result = succeeded(client, COPY)
            assert "what was written is sent again" in result["notes"][0]
            assert checked(client, 1, a=archive)["root"] == result["root"] == root_of({"a": guest.content("a")})
        at_most_once(sum(packs(archive, 1)), SIZE)
        assert held(archive, 1) == guest.content("a")
    finally:
        guest.stop(kill=True)


def test_credentials_that_expire_are_renewed_by_whoever_submits_again(stack: Stack, cloud: LocalCloud) -> None:
    path = stack.disk("sda", SIZE, {0: noise(SIZE)})
    lasting = bucket_of(cloud, "expiring")
    stack.start()
    with stack.agent_client as client:
        client.submit(COPY, spec(1, None, {"sda": with_session(lasting, cloud, 600)}, "8MB/s"))
        await_half(stack, client)
        expired = with_session(lasting, cloud, -1)
        client.submit(COPY, spec(1, None, {"sda": expired}, "8MB/s"))
        job = wait(client, COPY, JobState.FAILED, JobState.SUCCEEDED)
        assert job.error is not None and job.error.code == "denied" and "credentials" in job.error.remedy
        assert expired.access_key_secret not in str(job) and expired.token not in stack.agent.log()
        client.submit(COPY, spec(1, None, {"sda": with_session(lasting, cloud, 600)}))
        result = succeeded(client, COPY)
    assert held(lasting, 1) == path.read_bytes() and result["root"] == root_of({"sda": path.read_bytes()})
    at_most_once(sum(packs(lasting, 1)), SIZE)


def test_what_was_copied_is_committed_though_the_source_went_on(stack: Stack, faults: LocalCloud) -> None:
    """The archive may be a generation richer and its agent not know it: another content would be refused for ever."""
    path = stack.disk("sda", SIZE, {0: noise(MIB)})
    archive = bucket_of(faults, "cut")
    before = path.read_bytes()
    faults.faults.add(
        [Rule.model_validate({"service": "oss", "action": "PutObject", "resource": "*generations/1", "fault": DENY})]
    )
    stack.start()
    with stack.agent_client as client:
        client.submit(COPY, spec(1, None, {"sda": archive}))
        job = wait(client, COPY, JobState.FAILED, JobState.SUCCEEDED)
        assert job.error is not None and job.error.code == "denied" and job.step == "committing"
        assert open_archive(archive).generations() == []
        faults.faults.reset()
        change(path, 0)
        client.submit(COPY, spec(1, None, {"sda": archive}))
        assert succeeded(client, COPY)["root"] == root_of({"sda": before})
    assert held(archive, 1) == before


def not_quite(stack: Stack, faults: LocalCloud, archive: BucketArchive) -> None:
    """All was put but the record."""
    rule = {"service": "oss", "action": "PutObject", "resource": "*generations/1", "fault": DENY}
    faults.faults.add([Rule.model_validate(rule)])
    stack.start()
    with stack.agent_client as client:
        client.submit(COPY, spec(1, None, {"sda": archive}))
        assert wait(client, COPY, JobState.FAILED, JobState.SUCCEEDED).state is JobState.FAILED
    faults.faults.reset()


def test_what_was_swept_in_the_middle_of_a_copy_is_put_again(stack: Stack, faults: LocalCloud) -> None:
    """Its number is as good as before: the manifest's next generation is no other one."""
    path = stack.disk("sda", SIZE, {0: noise(SIZE)})
    archive = bucket_of(faults, "swept")
    not_quite(stack, faults, archive)
    assert sweep(open_archive(archive), [], -1.0).objects and packs(archive, 1) == []
    with stack.agent_client as client:
        client.submit(COPY, spec(1, None, {"sda": archive}))
        result = succeeded(client, COPY)
        assert "sent afresh" in result["notes"][0] and result["root"] == root_of({"sda": path.read_bytes()})
        assert checked(client, 1, sda=archive)["lost_bytes"] == 0
    assert held(archive, 1) == path.read_bytes()


def test_a_pack_that_somebody_deleted_costs_an_attempt(stack: Stack, faults: LocalCloud) -> None:
    path = stack.disk("sda", SIZE, {0: noise(SIZE)})
    archive = bucket_of(faults, "deleted")
    not_quite(stack, faults, archive)
    store = open_archive(archive).bare
    store.delete([next(iter(store.list("packs/1/"))).key])
    with stack.agent_client as client:
        client.submit(COPY, spec(1, None, {"sda": archive}))
        job = wait(client, COPY, JobState.FAILED, JobState.SUCCEEDED)
        assert job.error is not None and job.error.code == "blocks_lost" and "once more" in job.error.remedy
        client.submit(COPY, spec(1, None, {"sda": archive}))
        succeeded(client, COPY)
    assert held(archive, 1) == path.read_bytes()


@pytest.mark.skipif(not AS_ROOT, reason="mounts")
def test_a_full_disk_is_continued_on_the_next(stack: Stack, tmp_path: Path) -> None:
    path = stack.disk("sda", SIZE, {0: noise(SIZE)})
    with disk(tmp_path, "first", 20 * MIB) as first, disk(tmp_path, "second", 20 * MIB) as second:
        archive = disks_of(first)
        stack.start()
        with stack.agent_client as client:
            client.submit(COPY, spec(1, None, {"sda": archive}))
            job = wait(client, COPY, JobState.FAILED, JobState.SUCCEEDED)
            assert job.error is not None and (job.error.code, bool(job.error.remedy)) == ("store_full", True)
            both = archive.model_copy(update={"folders": [str(first), str(second)]})
            client.submit(COPY, spec(1, None, {"sda": both}))
            result = succeeded(client, COPY)
            found = checked(client, 1, sda=both)
        assert (found["root"], found["lost_bytes"]) == (result["root"], 0)
        assert held(both, 1) == path.read_bytes()
        at_most_once(sum(packs(both, 1)), SIZE)
        stack.agent.stop()


def test_increments_to_a_volume_and_a_bucket_build_on_a_seed_on_disks(
    stack: Stack, tmp_path: Path, cloud: LocalCloud
) -> None:
    path = stack.disk("sda", SIZE, {0: noise(8 * MIB)})
    seed, bucket = disks_of(tmp_path / "seed"), bucket_of(cloud, "after-disks")
    (tmp_path / "seed").mkdir()
    volume = stack.volume("v1", SIZE)
    stack.start()
    fill(stack, 1, None, sda=seed)
    stack.commit(1)
    volume.write_bytes(held(seed, 1))
    change(path, 5, 100)
    direct = stack.replicate(2, 1, sda="d-v1")
    assert (direct["base_used"], direct["notes"]) == (1, [])
    assert direct["disks"][0]["sent_bytes"] == 2 * BLOCK and "archive" not in direct["disks"][0]
    assert stack.verify(2, sda="d-v1")["root"] == direct["root"] and same(path, volume)
    stack.commit(2)
    change(path, 6)
    loaded = Path(f"/proc/{stack.agent.process.pid}/maps")
    assert "fastcrc" not in loaded.read_text() and "Crypto/" not in loaded.read_text(), "an SDK takes tens of MiB"
    on = fill(stack, 3, 2, sda=bucket)
    assert "fastcrc" in loaded.read_text() and "Crypto/" in loaded.read_text()
    assert on["base_used"] == 2 and on["disks"][0]["sent_bytes"] == BLOCK
    (joined,) = open_archive(bucket).chain(3)
    assert joined.base == 2 and joined.base_root == direct["disks"][0]["root"]


def test_a_volume_that_does_not_hold_the_seed_is_found_and_repaired(stack: Stack, tmp_path: Path) -> None:
    """Who orders the copy says what it builds on; the read-back says whether that was so."""
    path = stack.disk("sda", SIZE, {0: noise(4 * MIB)})
    (tmp_path / "seed").mkdir()
    seed = disks_of(tmp_path / "seed")
    volume = stack.volume("v1", SIZE, b"old!")
    stack.start()
    fill(stack, 1, None, sda=seed)
    # Filled out of the archive, but for a part that got lost.
    volume.write_bytes(held(seed, 1)[: 3 * MIB] + bytes(SIZE - 3 * MIB))
    assert stack.verify(1, sda="d-v1")["root"] != root_of({"sda": path.read_bytes()})
    repair = {**stack.spec(1, sda="d-v1"), "kind": "repair"}
    del repair["base"]
    with stack.agent_client as client:
        client.submit(f"{MIGRATION}/1/repair", repair)
        found = succeeded(client, f"{MIGRATION}/1/repair")
    assert (found["differing_bytes"], found["pending_bytes"]) == (MIB, 0)
    assert stack.verify(1, "again", sda="d-v1")["root"] == root_of({"sda": path.read_bytes()}) and same(path, volume)
    stack.commit(1)
    change(path, 7)
    assert stack.replicate(2, 1, sda="d-v1")["disks"][0]["sent_bytes"] == BLOCK and same(path, volume)


def test_what_a_check_misses_the_next_generation_sends(stack: Stack, tmp_path: Path) -> None:
    path = stack.disk("sda", SIZE, {0: noise(12 * MIB)})
    (tmp_path / "seed").mkdir()
    archive = disks_of(tmp_path / "seed")
    stack.start()
    sent = fill(stack, 1, None, sda=archive)
    victim = max((tmp_path / "seed").rglob("*.pack"), key=lambda path: path.stat().st_size)
    flip(victim, victim.stat().st_size // 2)
    doubts = f"/v1/migrations/{MIGRATION}/generations/1/doubts"
    with stack.agent_client as client:
        found = checked(client, 1, sda=archive)
        (about,) = found["disks"]
        assert found["root"] != sent["root"] and about["root"] != sent["disks"][0]["root"]
        assert [Path(name).name for name in about["damaged"]] == [victim.name]
        assert found["lost_bytes"] == about["lost_bytes"] == sum(each["length"] for each in about["lost"]) == MIB
        lost = {"disk": "sda", "ranges": [[each["offset"], each["length"]] for each in about["lost"]]}
        for bad in ({**lost, "disk": "sdb"}, {**lost, "ranges": [[SIZE - BLOCK, BLOCK + 1]]}, {**lost, "ranges": []}):
            with pytest.raises(ServiceError) as refused:
                client.post(doubts, {"disks": [bad]})
            assert refused.value.http_status == 422
        first, again = (client.post(doubts, {"disks": [lost]}) for _ in range(2))
        assert first == again and (first["generation"], first["doubted_bytes"]) == (1, found["lost_bytes"])
        result = fill(stack, 2, 1, sda=archive)
        assert result["base_used"] == 1 and result["disks"][0]["sent_bytes"] == found["lost_bytes"]
        # The damaged pack stays, and does no harm: a later one has what was in it.
        mended = checked(client, 2, base=found, sda=archive)
        assert (mended["root"], mended["lost_bytes"]) == (result["root"], 0) == (sent["root"], 0)
        assert mended["disks"][0]["read"] == [2, 1], "what was found damaged proves nothing"
        # Begun without them: too late to leave more to it. What it knew already is as good as noted.
        assert client.post(doubts, {"disks": [lost]}) == first
        with pytest.raises(ServiceError) as late:
            client.post(doubts, {"disks": [{"disk": "sda", "ranges": [[SIZE - BLOCK, BLOCK]]}]})
        assert late.value.http_status == 409
    stack.commit(2)
    assert held(archive, 2) == path.read_bytes()


def test_two_disks_do_not_share_an_archive(stack: Stack, tmp_path: Path) -> None:
    stack.disk("sda", MIB)
    stack.disk("sdb", MIB)
    (tmp_path / "seed").mkdir()
    archive = disks_of(tmp_path / "seed")
    stack.start()
    with stack.agent_client as client:
        client.submit(COPY, spec(1, None, {"sda": archive, "sdb": archive}))
        job = wait(client, COPY, JobState.FAILED, JobState.SUCCEEDED)
    assert job.error is not None and job.error.code == "invalid"
    with pytest.raises(Exception, match="no generation 1"):
        Archive.load(open_archive(archive), 1)


def cancelled(client: ServiceClient, key: str) -> None:
    """The answer comes once the handler has ended: in no time that a silent store is waited for."""
    job = client.request("DELETE", f"/v1/jobs/{key}", timeout=10)
    assert job["state"] == "cancelled", job


HANGS = {"kind": "delay", "seconds": 3600}


@pytest.mark.parametrize(
    ("fault", "action", "resource", "step"),
    [
        (HANGS, "GetObject", "*archive.json", "opening"),
        (HANGS, "PutObject", "*/packs/*", "copying"),
        ({"kind": "reset"}, "PutObject", "*/packs/*", "copying"),
        (HANGS, "PutObject", "*generations/1.packs", "committing"),
    ],
)
def test_a_cancel_waits_for_no_store(
    stack: Stack, faults: LocalCloud, fault: dict[str, Any], action: str, resource: str, step: str
) -> None:
    path = stack.disk("sda", SIZE, {0: noise(SIZE)})
    archive = bucket_of(faults, f"silent/{fault['kind']}/{step}")
    rule = {"id": "silent", "service": "oss", "action": action, "resource": resource, "fault": fault}
    faults.faults.add([Rule.model_validate(rule)])
    stack.start()
    with stack.agent_client as client:
        client.submit(COPY, spec(1, None, {"sda": archive}))
        while not faults.faults.counter("silent").injected:
            assert client.job(COPY).state in (JobState.QUEUED, JobState.RUNNING)
        assert client.job(COPY).step == step
        cancelled(client, COPY)
        faults.faults.reset()
        client.submit(COPY, spec(1, None, {"sda": archive}))
        assert succeeded(client, COPY)["root"] == root_of({"sda": path.read_bytes()})
        assert checked(client, 1, sda=archive)["lost_bytes"] == 0
    assert held(archive, 1) == path.read_bytes()


def test_so_it_is_with_a_check(stack: Stack, faults: LocalCloud) -> None:
    stack.disk("sda", SIZE, {0: noise(SIZE)})
    archive = bucket_of(faults, "silent/check")
    stack.start()
    fill(stack, 1, None, sda=archive)
    rule = {"id": "silent", "service": "oss", "action": "GetObject", "resource": "*/packs/*", "fault": HANGS}
    faults.faults.add([Rule.model_validate(rule)])
    key = f"{MIGRATION}/1/check"
    about = {"kind": "check", "migration": MIGRATION, "generation": 1}
    with stack.agent_client as client:
        client.submit(key, {**about, "disks": [{"disk": "sda", "archive": archive.model_dump()}]})
        while not faults.faults.counter("silent").injected:
            assert client.job(key).state in (JobState.QUEUED, JobState.RUNNING)
        cancelled(client, key)
