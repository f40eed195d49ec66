"""What a replication promises, on real processes and real files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from wavelift.service import tokens
from wavelift.service.client import ServiceError, Unauthorized
from wavelift.service.jobs import JobState, JobStatus

from .conftest import KEY, MIB, MIGRATION, SECRET, Stack, noise, same, wait

BLOCK = 64 * 1024
# Neither a multiple of 64 KiB nor of a megabyte.
ODD = 40 * MIB + 512


def packs(stack: Stack) -> int:
    return int(stack.gateway_client.health()["packs_received"])


def failed(stack: Stack, spec: dict[str, Any]) -> JobStatus:
    key = f"{MIGRATION}/{spec['generation']}/copy"
    with stack.agent_client as client:
        client.submit(key, spec)
        return wait(client, key, JobState.FAILED)


def test_full_copy_of_two_disks_over_used_volumes(stack: Stack) -> None:
    sda = stack.disk("sda", ODD, {0: noise(3 * MIB), 20 * MIB + 4096: noise(70_000), ODD - 700: noise(700)})
    sdb = stack.disk("sdb", 8 * MIB, {5 * MIB: b"x" * MIB})
    # Old data everywhere: zeroes and holes of the source must overwrite it.
    first = stack.volume("v1", 41 * MIB, b"old!" * (MIB // 4))
    second = stack.volume("v2", 8 * MIB, b"old!" * (MIB // 4))
    stack.start()
    with stack.agent_client as client:
        assert client.get("/v1/disks") == [
            {"id": "sda", "size": ODD, "sector_size": 512, "kind": "image", "consistency": "offline"},
            {"id": "sdb", "size": 8 * MIB, "sector_size": 512, "kind": "image", "consistency": "offline"},
        ]
    with stack.gateway_client as client:
        assert [(v["id"], v["size"]) for v in client.get("/v1/volumes")] == [("d-v1", 41 * MIB), ("d-v2", 8 * MIB)]
    result = stack.replicate(1, sda="d-v1", sdb="d-v2")
    assert first.read_bytes()[:ODD] == sda.read_bytes() and same(sdb, second)
    assert first.read_bytes()[ODD:] == (b"old!" * (MIB // 4))[512:]
    verified = stack.verify(1, sda="d-v1", sdb="d-v2")
    assert verified["root"] == result["root"]
    assert [d["root"] for d in verified["disks"]] == [d["root"] for d in result["disks"]]
    assert result["base_used"] is None and result["notes"] == []
    assert first.stat().st_blocks * 512 < 6 * MIB, "zeroes are punched, not written"


def test_a_disk_that_cannot_be_used_is_listed_with_its_error_beside_the_others(stack: Stack) -> None:
    stack.disk("sda", 4 * MIB)
    stack.disk("sdb", 4 * MIB).unlink()
    stack.start()
    with stack.agent_client as client:
        good, bad = client.get("/v1/disks")
    assert good == {"id": "sda", "size": 4 * MIB, "sector_size": 512, "kind": "image", "consistency": "offline"}
    assert (bad["id"], bad["kind"], "size" in bad) == ("sdb", "image", False)
    assert bad["error"]["code"] == "source_unreadable" and bad["error"]["remedy"]
    assert str(stack.disks["sdb"]) in bad["error"]["message"]


def test_an_increment_sends_the_changed_blocks_and_only_them(stack: Stack) -> None:
    disk = stack.disk("sda", ODD, {0: noise(30 * MIB)})
    volume = stack.volume("v1", ODD)
    stack.start()
    stack.replicate(1, sda="d-v1")
    stack.commit(1)
    stack.commit(1)
    with disk.open("r+b") as file:
        for block in (0, 7, 8, 300):
            file.seek(block * BLOCK + 10)
            file.write(b"changed")
        file.seek(100 * BLOCK)
        file.write(bytes(2 * BLOCK))
        file.seek(ODD - 5)
        file.write(b"tail!")
    result = stack.replicate(2, 1, sda="d-v1")
    (sent,) = result["disks"]
    assert result["base_used"] == 1 and result["notes"] == []
    assert sent["sent_bytes"] == 4 * BLOCK + 512
    assert sent["changed_bytes"] == 6 * BLOCK + 512
    assert sent["wire_bytes"] < 1.05 * sent["sent_bytes"]
    assert same(disk, volume)
    assert stack.verify(2, sda="d-v1")["root"] == result["root"]
    stack.commit(2)
    before = packs(stack)
    again = stack.replicate(3, 2, sda="d-v1")
    assert again["root"] == result["root"] and again["disks"][0]["wire_bytes"] == 0 and packs(stack) == before


def test_a_base_that_cannot_be_trusted_means_a_full_copy_and_says_so(stack: Stack) -> None:
    disk = stack.disk("sda", 4 * MIB, {0: noise(MIB)})
    first = stack.volume("v1", 4 * MIB)
    other = stack.volume("v2", 4 * MIB, b"used" * (MIB // 4))
    stack.start()
    missing = stack.replicate(1, 7, sda="d-v1")
    assert missing["base_used"] is None and "not here" in missing["notes"][0]
    stack.commit(1)
    with stack.agent_client as client, pytest.raises(ServiceError) as never:
        client.post(f"/v1/migrations/{MIGRATION}/generations/9/commit")
    assert never.value.http_status == 404
    foreign = stack.replicate(2, 1, sda="d-v2")
    assert foreign["base_used"] is None and "other volumes" in foreign["notes"][0] and same(disk, other)
    # Generation 2 was sent and never verified: what a volume holds is no longer known.
    unsure = stack.replicate(3, 1, sda="d-v1")
    assert unsure["base_used"] is None and "never committed" in unsure["notes"][0] and same(disk, first)


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_damaged_base_table_means_a_full_copy_and_is_healed_by_it(stack: Stack, damage: str) -> None:
    disk = stack.disk("sda", 4 * MIB, {0: noise(MIB)})
    volume = stack.volume("v1", 4 * MIB)
    stack.start()
    stack.replicate(1, sda="d-v1")
    stack.commit(1)
    (table,) = (stack.folder / "ag/migrations/web/maps/sda/segments").iterdir()
    if damage == "missing":
        table.unlink()
    else:
        content = bytearray(table.read_bytes())
        content[5] ^= 1
        table.write_bytes(content)
    # The disk is as it was, so the new map names the very table that is damaged.
    result = stack.replicate(2, 1, sda="d-v1")
    assert result["base_used"] is None and result["disks"][0]["sent_bytes"] == MIB
    assert table.name in result["notes"][0] and "full copy" in result["notes"][1]
    assert same(disk, volume) and stack.verify(2, sda="d-v1")["root"] == result["root"]
    stack.commit(2)
    after = stack.replicate(3, 2, sda="d-v1")
    assert (after["base_used"], after["notes"], after["root"]) == (2, [], result["root"])


def test_a_killed_agent_goes_on_by_itself_without_sending_again(stack: Stack) -> None:
    disk = stack.disk("sda", 160 * MIB, {0: noise(160 * MIB)})
    volume = stack.volume("v1", 160 * MIB)
    stack.start("--connections", "2")
    key = f"{MIGRATION}/1/copy"
    with stack.agent_client as client:
        client.submit(key, stack.spec(1, sda="d-v1"))
        while packs(stack) < 12:
            time.sleep(0.002)
    stack.agent.kill()
    assert not same(disk, volume)
    journal = (stack.folder / "ag/migrations/web/work/1/journal").read_text()
    assert journal.count("\n") > 2
    time.sleep(0.3)
    before = packs(stack)
    stack.agent.start()
    with stack.agent_client as client:
        job = wait(client, key, JobState.SUCCEEDED)
    assert job.attempt == 1 and job.result is not None
    assert same(disk, volume)
    sent_in_all = packs(stack)
    needed = -(-160 // 3)
    # Each connection may repeat its last packs: sent, or even acknowledged, but not yet in the journal.
    assert before < sent_in_all <= needed + 8, (before, sent_in_all)
    assert stack.verify(1, sda="d-v1")["root"] == job.result["root"]


def test_a_killed_gateway_is_waited_for(stack: Stack) -> None:
    disk = stack.disk("sda", 128 * MIB, {0: noise(128 * MIB)})
    volume = stack.volume("v1", 128 * MIB)
    stack.start("--connections", "2")
    key = f"{MIGRATION}/1/copy"
    with stack.agent_client as client:
        client.submit(key, stack.spec(1, sda="d-v1"))
        while packs(stack) < 6:
            time.sleep(0.002)
        stack.gateway.kill()
        assert client.job(key).state is JobState.RUNNING
        time.sleep(0.5)
        stack.gateway.start()
        job = wait(client, key, JobState.SUCCEEDED)
    assert job.attempt == 1 and job.result is not None and same(disk, volume)
    assert stack.verify(1, sda="d-v1")["root"] == job.result["root"]


def test_a_copy_that_waits_for_its_gateway_can_be_cancelled_or_outlive_its_agent(stack: Stack) -> None:
    disk = stack.disk("sda", 64 * MIB, {0: noise(64 * MIB)})
    volume = stack.volume("v1", 64 * MIB)
    stack.start("--connections", "2")
    stack.gateway.kill()
    key = f"{MIGRATION}/1/copy"
    with stack.agent_client as client:
        client.submit(key, stack.spec(1, sda="d-v1"))
        wait(client, key, JobState.RUNNING)
        time.sleep(0.5)
        assert client.cancel(key).state is JobState.CANCELLED
        client.submit(key, stack.spec(1, sda="d-v1"))
        wait(client, key, JobState.RUNNING)
        time.sleep(0.5)
    stack.agent.stop()
    stack.gateway.start()
    stack.agent.start()
    with stack.agent_client as client:
        job = wait(client, key, JobState.SUCCEEDED)
    assert job.attempt == 2 and same(disk, volume)


def test_a_cancelled_copy_writes_nothing_more_and_can_be_taken_up(stack: Stack) -> None:
    disk = stack.disk("sda", 160 * MIB, {0: noise(160 * MIB)})
    volume = stack.volume("v1", 160 * MIB)
    stack.start("--connections", "2")
    key = f"{MIGRATION}/1/copy"
    with stack.agent_client as client:
        client.submit(key, stack.spec(1, sda="d-v1"))
        while packs(stack) < 4:
            time.sleep(0.002)
        assert client.cancel(key).state is JobState.CANCELLED
        written, received = volume.stat().st_mtime_ns, packs(stack)
        time.sleep(0.4)
        assert (volume.stat().st_mtime_ns, packs(stack)) == (written, received)
        assert not same(disk, volume)
        assert client.submit(key, stack.spec(1, sda="d-v1")).attempt == 2
        wait(client, key, JobState.SUCCEEDED)
    assert same(disk, volume) and packs(stack) <= -(-160 // 3) + 8


def test_a_flipped_bit_on_the_target_is_found_by_reading_back(stack: Stack) -> None:
    stack.disk("sda", ODD, {0: noise(2 * MIB), 9 * MIB: noise(MIB)})
    volume = stack.volume("v1", ODD)
    stack.start()
    result = stack.replicate(1, sda="d-v1")
    assert stack.verify(1, sda="d-v1")["root"] == result["root"]
    with volume.open("r+b") as file:
        file.seek(9 * MIB + 77)
        byte = file.read(1)[0]
        file.seek(9 * MIB + 77)
        file.write(bytes([byte ^ 1]))
    assert stack.verify(1, "again", sda="d-v1")["root"] != result["root"]


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"lifetime": -1}, "sink_unauthorized", "expired"),
        ({"volumes": ["d-other"]}, "sink_unauthorized", "does not cover"),
        ({"migration": "other"}, "sink_unauthorized", "migration"),
        ({"scope": "control"}, "sink_unauthorized", "scope"),
        ({"key": "another-key-of-32-bytes-or-more!!"}, "sink_unauthorized", "not valid"),
    ],
)
def test_write_tokens_are_held_to(stack: Stack, change: dict[str, Any], code: str, words: str) -> None:
    stack.disk("sda", 4 * MIB, {0: noise(MIB)})
    volume = stack.volume("v1", 4 * MIB)
    stack.start()
    right: dict[str, Any] = {
        "key": KEY,
        "migration": MIGRATION,
        "scope": "write",
        "volumes": ["d-v1"],
        "lifetime": 60,
    }
    given = {**right, **change}
    token = tokens.issue(given.pop("key"), **given)
    job = failed(stack, stack.spec(1, token=token, sda="d-v1"))
    assert job.error is not None and job.error.code == code and words in job.error.message and job.error.remedy
    assert volume.stat().st_blocks == 0
    assert token not in stack.agent.log() + stack.gateway.log() + job.model_dump_json()
    stack.replicate(1, sda="d-v1")


def test_what_does_not_fit_or_is_not_there_is_named(stack: Stack) -> None:
    stack.disk("sda", 4 * MIB, {0: noise(MIB)})
    stack.volume("v1", 3 * MIB)
    stack.start()
    small = failed(stack, stack.spec(1, sda="d-v1"))
    assert small.error is not None and small.error.code == "volume_too_small"
    assert all(word in small.error.message for word in ("sda", "d-v1", str(3 * MIB), str(4 * MIB)))
    gone = failed(stack, stack.spec(2, sda="d-none"))
    assert gone.error is not None and gone.error.code == "volume_not_attached" and "d-v1" in gone.error.message
    unknown = failed(stack, stack.spec(3, sdx="d-v1"))
    assert unknown.error is not None and unknown.error.code == "disk_not_found" and "sda" in unknown.error.message


def test_who_may_call(stack: Stack) -> None:
    stack.disk("sda", 4 * MIB)
    stack.volume("v1", 4 * MIB)
    stack.start()
    with pytest.raises(Unauthorized):
        stack.agent.client("wrong-" + SECRET).get("/v1/disks")
    write = tokens.issue(KEY, migration=MIGRATION, scope="write", volumes=["d-v1"], lifetime=60)
    with pytest.raises(ServiceError) as caught:
        stack.gateway.client(write).get("/v1/volumes")
    assert caught.value.code == "forbidden"
    other = tokens.issue(KEY, migration="other", scope="control", lifetime=60)
    spec = {"kind": "verify", "migration": MIGRATION, "generation": 1, "disks": []}
    with pytest.raises(ServiceError) as foreign:
        stack.gateway.client(other).submit(f"{MIGRATION}/1/verify", spec)
    assert foreign.value.code == "forbidden"


def test_forgetting_a_migration_leaves_nothing(stack: Stack) -> None:
    stack.disk("sda", 4 * MIB, {0: noise(MIB)})
    stack.volume("v1", 4 * MIB)
    stack.start()
    stack.replicate(1, sda="d-v1")
    stack.commit(1)
    with stack.agent_client as client:
        client.delete(f"/v1/migrations/{MIGRATION}")
        client.delete(f"/v1/migrations/{MIGRATION}")
        assert client.jobs() == []
    assert list((stack.folder / "ag/migrations").iterdir()) == []
    assert stack.replicate(2, 1, sda="d-v1")["base_used"] is None


def test_memory_does_not_grow_with_the_disk(stack: Stack) -> None:
    size = 1 << 40
    pieces = {at * (size // 40) // 4096 * 4096: noise(2 * MIB, at) for at in range(40)}
    stack.disk("sda", size, pieces)
    volume = stack.volume("v1", size)
    stack.start()
    result = stack.replicate(1, sda="d-v1")
    assert stack.verify(1, sda="d-v1")["root"] == result["root"]
    stack.commit(1)
    with Path(stack.disks["sda"]).open("r+b") as file:
        file.seek(size - 512)
        file.write(b"end")
    assert stack.replicate(2, 1, sda="d-v1")["disks"][0]["sent_bytes"] == BLOCK
    assert volume.stat().st_blocks * 512 < 100 * MIB
    assert stack.agent.peak_mib() < 128 and stack.gateway.peak_mib() < 128
