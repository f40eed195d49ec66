"""The agent and its gateway: a certificate that is not the pinned one, and tokens that end while a job goes on."""

from __future__ import annotations

from tests.agent.conftest import KEY, MIB, MIGRATION, Stack, noise, same, succeeded, wait
from tests.gateway.test_gateway import SIZE, make_pack
from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.blocks.digest import BLOCK
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
    assert same(source, volume)
    assert spec["disks"][0]["sink"]["token"] not in stack.agent.log() + stack.gateway.log()


def test_a_token_that_ended_is_replaced_by_the_one_that_came_meanwhile(stack: Stack) -> None:
    volume = stack.volume("v1", SIZE)
    stack.start()
    lifetimes = iter([-1.0, 60.0])
    given: list[str] = []

    def current() -> SinkDescriptor:
        if len(given) < 2:
            lifetime = next(lifetimes)
            given.append(tokens.issue(KEY, migration=MIGRATION, scope="write", volumes=["d-v1"], lifetime=lifetime))
        gateway = stack.gateway
        return SinkDescriptor(
            url=gateway.url, fingerprint=gateway.fingerprint, volume="d-v1", generation=1, token=given[-1]
        )

    sink = open_sink(current, give_up_seconds=20)
    data = noise(BLOCK)
    assert sink.put(1, memoryview(make_pack(data))).blocks == 1
    sink.close()
    assert volume.read_bytes()[:BLOCK] == data and len(given) == 2
    assert not [token for token in given if token in stack.gateway.log()]
