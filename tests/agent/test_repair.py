"""A bit that flips on a volume is found, named by disk and byte, and repaired by sending that block again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from wavelift.agent.state import MigrationState
from wavelift.service.client import ServiceError
from wavelift.service.jobs import JobState

from ..sources.test_qemu import Machine
from .conftest import MIB, MIGRATION, Stack, noise, same, succeeded, wait

BLOCK = 64 * 1024
ODD = 40 * MIB + 512
LIMIT = 90_000_000


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def repair(stack: Stack, generation: int, step: str = "repair", **volumes: str) -> dict[str, Any]:
    spec = {**stack.spec(generation, **volumes), "kind": "repair"}
    del spec["base"]
    with stack.agent_client as client:
        # The limit a copy carried is not known any more where the agent was started anew: the repair has its own.
        client.submit(key := f"{MIGRATION}/{generation}/{step}", {**spec, "bandwidth": LIMIT})
        result = succeeded(client, key)
        limits = client.get(f"/v1/migrations/{MIGRATION}/limits")
        assert (limits["limit"], limits["set_by"]) == (LIMIT, "job")
        return result


def ranges(*blocks: int, size: int = ODD) -> list[dict[str, int]]:
    return [{"offset": at * BLOCK, "length": min(BLOCK, size - at * BLOCK)} for at in blocks]


def look(stack: Stack, step: str, blocks: int, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A sample of sda: what the agent draws, what the gateway finds."""
    with stack.agent_client as client:
        path = f"/v1/migrations/{MIGRATION}/generations/1/sample"
        drawn = client.post(path, {"blocks": blocks, "seed": seed})["disks"][0]
    disk = {"disk": "sda", "volume": "d-v1", "size": drawn["size"], "blocks": drawn["blocks"]}
    spec = {"kind": "sample", "migration": MIGRATION, "generation": 1, "disks": [disk]}
    with stack.gateway_client as client:
        client.submit(key := f"{MIGRATION}/1/{step}", spec)
        return drawn, succeeded(client, key)


def about(stack: Stack) -> dict[str, Any]:
    with stack.agent_client as client:
        return dict(client.get(f"/v1/migrations/{MIGRATION}"))


def test_a_flipped_bit_is_seen_by_a_sample_named_and_its_block_alone_is_sent_again(stack: Stack) -> None:
    disk = stack.disk("sda", ODD, {0: noise(10 * MIB), ODD - 512: noise(512)})
    stack.disk("sdb", 2 * MIB, {0: noise(MIB)})
    volume, other = stack.volume("v1", ODD), stack.volume("v2", 2 * MIB)
    stack.start()
    names = {"sda": "d-v1", "sdb": "d-v2"}
    result = stack.replicate(1, **names)
    with pytest.raises(AssertionError, match="not read back"):
        repair(stack, 1, "early", **names)
    drawn, found = look(stack, "small", 64, 5)
    assert (drawn["data_blocks"], len(drawn["blocks"]), found["differing_blocks"]) == (161, 64, 0)
    assert drawn["chance_one_block"] < 56 / 161 + 0.01 and 0.4 < drawn["chance_one_percent"] < 0.6
    assert look(stack, "again", 64, 5)[0] == drawn and look(stack, "other", 64, 6)[0] != drawn
    last = ODD // BLOCK
    # Within data, in zeroes, and in the last block, which is no whole one.
    wrong = ranges(9 * MIB // BLOCK + 3, 500, last)
    for block in (9 * MIB // BLOCK + 3, 500, last):
        flip(volume, block * BLOCK + 77)
    drawn, found = look(stack, "whole", 4096, 1)
    assert drawn["chance_one_block"] == 1 and found["disks"][0]["differing"] == wrong
    assert stack.verify(1, **names)["root"] != result["root"]
    done = repair(stack, 1, **names)
    sda, sdb = done["disks"]
    assert (sda["disk"], sda["differing"], sda["differing_bytes"]) == ("sda", wrong, 2 * BLOCK + 512)
    assert sda["repaired_bytes"] == 2 * BLOCK + 512 and sda["wire_bytes"] < BLOCK + 4096
    assert (sdb["differing"], sdb["wire_bytes"], done["pending_bytes"]) == ([], 0, 0)
    assert stack.verify(1, "verify-2", **names)["root"] == result["root"]
    assert same(disk, volume) and same(stack.disks["sdb"], other)
    stack.commit(1)
    # A committed generation can be repaired, too.
    flip(other, 5)
    stack.verify(1, "verify-3", **names)
    assert repair(stack, 1, "repair-3", **names)["disks"][1]["differing"] == ranges(0)
    assert stack.verify(1, "verify-4", **names)["root"] == result["root"]


def test_a_block_that_the_source_no_longer_has_is_sent_by_the_next_generation(stack: Stack) -> None:
    disk = stack.disk("sda", ODD, {0: noise(2 * MIB), 9 * MIB: noise(MIB)})
    volume = stack.volume("v1", ODD)
    stack.start()
    result = stack.replicate(1, sda="d-v1")
    for block in (2, 5, 300):
        flip(volume, block * BLOCK)
    stack.verify(1, sda="d-v1")
    content = disk.read_bytes()[5 * BLOCK : 6 * BLOCK]
    with disk.open("r+b") as file:
        file.seek(5 * BLOCK + 100)
        file.write(b"moved on")
    done = repair(stack, 1, sda="d-v1")
    (sda,) = done["disks"]
    assert (sda["differing"], sda["pending"]) == (ranges(2, 5, 300), ranges(5))
    assert stack.verify(1, "verify-2", sda="d-v1")["root"] != result["root"]
    sda = {"disk": "sda", "root": result["disks"][0]["root"]}
    assert about(stack) == {"migration": MIGRATION, "generation": 1, "disks": [sda], "doubted_bytes": BLOCK}
    # The source is back to what the map says, so that nothing but the doubt makes the block travel.
    with disk.open("r+b") as file:
        file.seek(5 * BLOCK)
        file.write(content)
    flip(volume, 5 * BLOCK + 9)
    stack.agent.kill()
    stack.agent.start()
    again = stack.replicate(2, 1, sda="d-v1")
    assert (again["base_used"], again["disks"][0]["sent_bytes"], again["root"]) == (1, BLOCK, result["root"])
    assert stack.verify(2, sda="d-v1")["root"] == again["root"] and same(disk, volume)
    stack.commit(2)
    assert MigrationState(stack.folder / "ag", MIGRATION).known(2).doubts == {}
    assert (about(stack)["generation"], about(stack)["doubted_bytes"]) == (2, 0)
    assert stack.replicate(3, 2, sda="d-v1")["disks"][0]["sent_bytes"] == 0


@pytest.mark.slow
def test_the_repair_of_a_live_guest_leaves_its_bitmap_in_use(stack: Stack, tmp_path: Path) -> None:
    size = 4 * MIB
    guest = Machine(tmp_path, a=size)
    try:
        guest.io("a", "write -P 1 0 2M")
        stack.disks["a"] = Path(f"qmp:{guest.monitor}?node=a")
        volume = stack.volume("v1", size)
        stack.start()
        stack.replicate(1, a="d-v1")
        for block in (3, 20):
            flip(volume, block * BLOCK)
        disks = [{"disk": "a", "volume": "d-v1", "size": size}]
        verify = {"kind": "verify", "migration": MIGRATION, "generation": 1, "disks": disks}
        with stack.gateway_client as client:
            client.submit(key := f"{MIGRATION}/1/verify", verify)
            succeeded(client, key)
        guest.io("a", "write -P 7 192k 4k")
        guest.io("a", "write -P 8 1M 4k")
        (found,) = repair(stack, 1, a="d-v1")["disks"]
        assert (found["differing"], found["pending"]) == (ranges(3, 20, size=size), ranges(3, size=size))
        second = stack.replicate(2, 1, a="d-v1")
        assert (second["tracker"], second["base_used"], second["notes"]) == ("bitmap", 1, [])
        assert second["disks"][0]["sent_bytes"] == 2 * BLOCK and volume.read_bytes() == guest.content("a")
    finally:
        guest.stop(kill=True)


def test_a_repair_can_be_cancelled_and_goes_on_after_a_kill(stack: Stack) -> None:
    disk = stack.disk("sda", 16 * MIB, {0: noise(16 * MIB)})
    volume = stack.volume("v1", 16 * MIB)
    stack.start("--connections", "1")
    result = stack.replicate(1, sda="d-v1")
    volume.write_bytes(b"rubbish!" * (2 * MIB))
    stack.verify(1, sda="d-v1")
    spec = {**stack.spec(1, sda="d-v1"), "kind": "repair"}
    del spec["base"]
    spec["disks"][0]["sink"]["max_pack_bytes"] = 2 * MIB
    key = f"{MIGRATION}/1/repair"

    def some_packs_more() -> None:
        before = gateway.health()["packs_received"]
        while gateway.health()["packs_received"] < before + 2:
            time.sleep(0.01)

    with stack.agent_client as client, stack.gateway_client as gateway:
        # Two packs come soon; what is left takes long enough to act before its end.
        client.request("PUT", "/v1/limits", {"bandwidth": "8MB/s"})
        client.submit(key, spec)
        some_packs_more()
        assert client.cancel(key).state is JobState.CANCELLED
        client.submit(key, spec)
        some_packs_more()
        stack.agent.kill()
    assert not same(disk, volume)
    stack.agent.start()
    with stack.agent_client as client:
        client.request("PUT", "/v1/limits", {"bandwidth": None})
        job = wait(client, key, JobState.SUCCEEDED)
    assert job.result is not None and job.result["disks"][0]["repaired_bytes"] == 16 * MIB
    assert stack.verify(1, "verify-2", sda="d-v1")["root"] == result["root"] and same(disk, volume)


def test_a_repair_believes_no_read_back_that_is_older_than_the_volume(stack: Stack) -> None:
    disk = stack.disk("sda", 4 * MIB, {0: noise(2 * MIB)})
    volume = stack.volume("v1", 4 * MIB)
    stack.start()
    stack.replicate(1, sda="d-v1")
    stack.verify(1, sda="d-v1")
    with disk.open("r+b") as file:
        file.write(noise(MIB, 5))
    with stack.agent_client as client:
        client.submit(key := f"{MIGRATION}/1/copy-again", stack.spec(1, sda="d-v1"))
        succeeded(client, key)
    assert same(disk, volume)
    with pytest.raises(AssertionError, match="written to since"):
        repair(stack, 1, sda="d-v1")
    assert same(disk, volume)
    stack.verify(1, "verify-2", sda="d-v1")
    assert repair(stack, 1, "repair-2", sda="d-v1")["differing_bytes"] == 0


def test_what_was_read_back_of_another_disk_is_refused(stack: Stack) -> None:
    stack.disk("sda", 2 * MIB, {0: noise(MIB)})
    stack.disk("sdb", 2 * MIB)
    stack.volume("v1", 2 * MIB)
    stack.start()
    stack.replicate(1, sda="d-v1")
    stack.verify(1, sdb="d-v1")
    with pytest.raises(AssertionError, match="read back as disk sdb"):
        repair(stack, 1, sda="d-v1")


def test_a_repair_of_a_committed_generation_has_its_doubts_written_before_it_sends(stack: Stack) -> None:
    disk = stack.disk("sda", 4 * MIB, {0: noise(2 * MIB)})
    volume = stack.volume("v1", 4 * MIB)
    stack.start()
    result = stack.replicate(1, sda="d-v1")
    stack.commit(1)
    flip(volume, 3 * BLOCK)
    stack.verify(1, sda="d-v1")
    limit = f"/v1/migrations/{MIGRATION}/limits"
    spec = {**stack.spec(1, sda="d-v1"), "kind": "repair"}
    del spec["base"]
    with stack.agent_client as client:
        client.request("PUT", limit, {"bandwidth": 0})
        client.submit(key := f"{MIGRATION}/1/repair", spec)
        deadline = time.monotonic() + 30
        while not about(stack)["doubted_bytes"]:
            assert time.monotonic() < deadline, client.job(key)
            time.sleep(0.02)
    stack.agent.kill()
    assert MigrationState(stack.folder / "ag", MIGRATION).known(1).doubts == {"sda": [(3 * BLOCK, 4 * BLOCK)]}
    stack.agent.start()
    with stack.agent_client as client:
        client.request("PUT", limit, {"bandwidth": None})
        succeeded(client, key)
    assert about(stack)["doubted_bytes"] == 0 and same(disk, volume)
    assert stack.verify(1, "verify-2", sda="d-v1")["root"] == result["root"]


def test_what_cannot_be_repaired_says_why(stack: Stack) -> None:
    stack.disk("sda", 2 * MIB, {0: noise(MIB)})
    stack.volume("v1", 2 * MIB)
    stack.volume("v2", 2 * MIB)
    stack.start()
    stack.replicate(1, sda="d-v1")
    stack.verify(1, sda="d-v1")
    # What was read back is for the sender of that volume.
    for token, path, status in (
        (stack.write_token("d-v1"), "/v1/volumes/d-v1/readbacks/1/segments/1", 404),
        (stack.write_token("d-v1"), "/v1/volumes/d-v1/readbacks/2", 404),
        (stack.write_token("d-v2"), "/v1/volumes/d-v1/readbacks/1", 403),
        (stack.control_token(), "/v1/volumes/d-v1/readbacks/1", 403),
    ):
        with stack.client_of_gateway(token) as client, pytest.raises(ServiceError) as caught:
            client.get(path)
        assert caught.value.http_status == status
    for generation, volume, words in ((7, "d-v1", "never replicated"), (1, "d-v2", "sda on d-v1")):
        with pytest.raises(AssertionError, match=words):
            repair(stack, generation, f"to-{volume}", sda=volume)
    stack.commit(1)
    stack.replicate(2, 1, sda="d-v1")
    with pytest.raises(AssertionError, match="Generation 2 was begun"):
        repair(stack, 1, "late", sda="d-v1")
