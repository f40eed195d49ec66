"""Increments of a live guest by its bitmap: what they send, and when the bitmap is not believed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavelift.agent.tracker import by_blocks
from wavelift.service.jobs import JobState
from wavelift.sources.base import Extent

from ..sources.test_qemu import Machine
from .conftest import MIB, MIGRATION, Stack, wait

BLOCK = 64 * 1024
SIZE = 16 * MIB


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path, a=SIZE, rawb=SIZE)
    yield machine
    machine.stop(kill=True)


def start(stack: Stack, guest: Machine) -> tuple[Path, Path]:
    for name in ("a", "rawb"):
        stack.disks[name] = Path(f"qmp:{guest.monitor}?node={name}")
    volumes = stack.volume("v1", SIZE, b"old!" * (MIB // 4)), stack.volume("v2", SIZE)
    stack.start()
    return volumes


def cycle(stack: Stack, generation: int) -> dict[str, Any]:
    return stack.replicate(generation, generation - 1 or None, a="d-v1", rawb="d-v2")


def proven(stack: Stack, guest: Machine, volumes: tuple[Path, Path], result: dict[str, Any], generation: int) -> None:
    for name, volume in zip(("a", "rawb"), volumes, strict=True):
        assert volume.read_bytes() == guest.content(name)
    disks = [{"disk": d, "volume": v, "size": SIZE} for d, v in (("a", "d-v1"), ("rawb", "d-v2"))]
    with stack.gateway_client as client:
        key = f"{MIGRATION}/{generation}/verify"
        client.submit(key, {"kind": "verify", "migration": MIGRATION, "generation": generation, "disks": disks})
        job = wait(client, key, JobState.SUCCEEDED)
    assert job.result is not None and job.result["root"] == result["root"]


def test_increments_send_what_changed_and_a_killed_agent_loses_nothing(stack: Stack, guest: Machine) -> None:
    guest.io("a", "write -P 1 0 9M")
    guest.io("rawb", "write -P 2 3M 2M")
    volumes = start(stack, guest)
    with stack.agent_client as client:
        assert client.get("/v1/disks") == [
            {"id": name, "size": SIZE, "sector_size": 512, "kind": "qemu", "consistency": "crash-consistent"}
            for name in ("a", "rawb")
        ]
    first = cycle(stack, 1)
    assert (first["tracker"], first["base_used"], first["notes"]) == ("scan", None, [])
    proven(stack, guest, volumes, first, 1)
    stack.commit(1)
    guest.io("a", "write -P 7 1M 128k")
    guest.io("a", "write -z -u 2M 128k")
    guest.io("a", "discard 3M 64k")
    guest.io("rawb", "write -P 8 5000k 4k")
    second = cycle(stack, 2)
    assert (second["tracker"], second["base_used"], second["notes"]) == ("bitmap", 1, [])
    assert [(disk["sent_bytes"], disk["changed_bytes"]) for disk in second["disks"]] == [
        (2 * BLOCK, 5 * BLOCK),
        (BLOCK, BLOCK),
    ]
    proven(stack, guest, volumes, second, 2)
    stack.commit(2)
    # Killed in the third, with the guest's moment open; meanwhile a block goes back to what the base has.
    guest.io("a", "write -P 9 0 1M")
    stack.gateway.kill()
    key = f"{MIGRATION}/3/copy"
    with stack.agent_client as client:
        client.submit(key, stack.spec(3, 2, a="d-v1", rawb="d-v2"))
        while client.job(key).step != "copying":
            time.sleep(0.02)
    stack.agent.kill()
    assert guest.left()
    guest.io("a", "write -P 1 0 512k")
    guest.io("rawb", "write -P 3 8M 64k")
    stack.gateway.start()
    stack.agent.start()
    with stack.agent_client as client:
        job = wait(client, key, JobState.SUCCEEDED)
    third = job.result
    assert third is not None and guest.left() == []
    assert (third["tracker"], third["base_used"]) == ("bitmap", 2) and "moved on" in third["notes"][0]
    assert [disk["sent_bytes"] for disk in third["disks"]] == [16 * BLOCK, BLOCK]
    proven(stack, guest, volumes, third, 3)
    stack.commit(3)
    with stack.agent_client as client:
        assert client.delete(f"/v1/migrations/{MIGRATION}")["left"] == []
    assert guest.bitmaps("a") == guest.bitmaps("rawb") == []


def test_a_bitmap_that_lies_or_is_gone_is_replaced_by_a_scan(stack: Stack, guest: Machine) -> None:
    guest.io("a", "write -P 1 0 16M")
    volumes = start(stack, guest)
    cycle(stack, 1)
    stack.commit(1)
    guest.io("a", "write -P 2 0 16M")
    (bitmap,) = guest.bitmaps("a")
    guest.qmp.execute("block-dirty-bitmap-clear", {"node": "node-a", "name": bitmap})
    second = cycle(stack, 2)
    assert (second["tracker"], second["base_used"]) == ("scan", 1)
    assert "disk a" in second["notes"][0] and "called it unchanged" in second["notes"][0]
    proven(stack, guest, volumes, second, 2)
    stack.commit(2)
    # QEMU starts anew: the raw disk's bitmap lived in its memory.
    guest.stop()
    guest.start()
    guest.io("rawb", "write -P 4 1M 64k")
    third = cycle(stack, 3)
    assert (third["tracker"], third["base_used"]) == ("scan", 2) and "rawb: its bitmap is gone" in third["notes"][0]
    assert [(disk["tracker"], disk["sent_bytes"]) for disk in third["disks"]] == [("bitmap", 0), ("scan", BLOCK)]
    proven(stack, guest, volumes, third, 3)
    stack.commit(3)
    assert cycle(stack, 4)["tracker"] == "bitmap"


lengths = st.sampled_from([512, 4096, BLOCK - 512, BLOCK, BLOCK + 512, 3 * BLOCK])


@given(st.lists(st.tuples(lengths, st.booleans(), st.booleans()), max_size=12))
def test_whole_blocks_are_dirty_when_a_part_is_and_zero_when_all_is(pieces: list[tuple[int, bool, bool]]) -> None:
    extents, at = [], 0
    for length, dirty, zero in pieces:
        extents.append(Extent(at, length, dirty, zero))
        at += length
    found = list(by_blocks(extents))
    assert [extent.start for extent in found] == [0, *(e.start + e.length for e in found)][: len(found)]
    assert sum(extent.length for extent in found) == at and all(extent.start % BLOCK == 0 for extent in found)
    for start in range(0, at, BLOCK):
        touching = [e for e in extents if e.start < start + BLOCK and e.start + e.length > start]
        (block,) = [e for e in found if e.start <= start < e.start + e.length]
        assert block.dirty == any(e.dirty for e in touching)
        assert block.zero == all(e.zero for e in touching)
