"""The agent and its gateway: a certificate that is not the pinned one, and tokens that end while a job goes on."""

from __future__ import annotations

import threading

import pytest

from tests.agent.conftest import KEY, MIB, MIGRATION, Stack, noise, same, succeeded, wait
from tests.gateway.test_gateway import SIZE, make_pack
from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.blocks.digest import BLOCK
from wavelift.blocks.errors import WrongGateway
from wavelift.blocks.remote_map import RemoteMap
from wavelift.blocks.sink import open_sink
from wavelift.service import tokens
from wavelift.service.jobs import JobState

OTHER = "3" * 64


def test_a_job_does_not_send_to_another_gateway_and_goes_on_with_the_right_pin(stack: Stack) -> None:
    source = stack.disk("sda", 4 * MIB, {0: noise(MIB)})
    volume = stack.volume("v1", 4 * MIB)
    stack.start()
    key, spec = f"{MIGRATION}/1/copy", stack.spec(1, sda="d-v1")
    spec["disks"][0]["sink"]["fingerprint"] = OTHER
    with stack.agent_client as agent:
        agent.submit(key, spec)
        failed = wait(agent, key, JobState.FAILED, JobState.SUCCEEDED)
        assert failed.error is not None and failed.error.code == "wrong_fingerprint"
        assert OTHER in failed.error.message and stack.gateway.fingerprint in failed.error.message
        with stack.gateway_client as gateway:
            assert gateway.health()["packs_received"] == 0
        # Another fingerprint is no other job: a gateway that was set up anew has another token as well.
        assert agent.submit(key, stack.spec(1, sda="d-v1")).attempt == 2
        succeeded(agent, key)
        stack.verify(1, sda="d-v1")
    pins = [stack.gateway.fingerprint]

    def current() -> SinkDescriptor:
        sink = stack.spec(1, sda="d-v1")["disks"][0]["sink"]
        return SinkDescriptor.model_validate({**sink, "fingerprint": pins[0]})

    with RemoteMap(current, threading.Event()) as there:
        pins[:] = [OTHER]
        with pytest.raises(WrongGateway):
            there.table(0)
    assert same(source, volume)
    assert spec["disks"][0]["sink"]["token"] not in stack.agent.log() + stack.gateway.log()


def test_token_and_pin_of_each_pack_are_those_that_came_meanwhile(stack: Stack) -> None:
    volume = stack.volume("v1", SIZE)
    stack.start()
    lifetimes = iter([-1.0, 60.0])
    given: list[str] = []
    pins = [stack.gateway.fingerprint]

    def current() -> SinkDescriptor:
        if len(given) < 2:
            lifetime = next(lifetimes)
            given.append(tokens.issue(KEY, migration=MIGRATION, scope="write", volumes=["d-v1"], lifetime=lifetime))
        gateway = stack.gateway
        return SinkDescriptor(url=gateway.url, fingerprint=pins[0], volume="d-v1", generation=1, token=given[-1])

    sink = open_sink(current, give_up_seconds=20)
    data = noise(BLOCK)
    assert sink.put(1, memoryview(make_pack(data))).blocks == 1
    assert volume.read_bytes()[:BLOCK] == data and len(given) == 2
    # Another pin counts from the next pack on, also where a connection is open.
    pins[:] = [OTHER]
    with pytest.raises(WrongGateway):
        sink.put(2, memoryview(make_pack(noise(BLOCK), sequence=2)))
    sink.close()
    assert volume.read_bytes()[:BLOCK] == data
    assert not [token for token in given if token in stack.gateway.log()]
