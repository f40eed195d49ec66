"""Commands on host instances: the rules, and what becomes of a command. In a guest: test_uefi."""

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_ecs20140526.models import RunCommandRequestResourceTag

from wavelift.localcloud.entities import Execution, Instance, Invocation
from wavelift.localcloud.model.context import Options
from wavelift.localcloud.runtimes import processes
from wavelift.localcloud.runtimes.agents import NoAnswer
from wavelift.localcloud.runtimes.guests import Channel
from wavelift.localcloud.server import LocalCloud


@pytest.fixture(scope="module")
def web(ecs: Any) -> Iterator[str]:
    instance_id: str = ecs.run_host()
    yield instance_id
    ecs.release(instance_id)


def begin(ecs: Any, instance_id: str, script: str, **fields: Any) -> str:
    fields = {"type": "RunShellScript", "content_encoding": "PlainText", "command_content": script, **fields}
    invoke_id: str = ecs.call("run_command", instance_id=[instance_id], **fields)["InvokeId"]
    return invoke_id


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


def test_a_command_and_its_result(ecs: Any, web: str) -> None:
    content = base64.b64encode(b"#!/bin/bash\necho $0; echo out; echo aside >&2; echo $INSTANCE_ID; cat").decode()
    answer = ecs.call("run_command", type="RunShellScript", command_content=content, instance_id=[web], name="look")
    result = ecs.result(answer["InvokeId"])
    assert result["Output"].endswith(f"/script\nout\naside\n{web}\n")
    assert (result["InvocationStatus"], result["ExitCode"], result["ErrorCode"]) == ("Success", 0, "")
    assert result["InvokeRecordStatus"] == "Finished" and result["FinishedTime"] >= result["StartTime"] > ""
    assert result["CommandId"] == answer["CommandId"]
    (told,) = ecs.call("describe_invocations", invoke_id=answer["InvokeId"])["Invocations"]["Invocation"]
    assert (told["CommandContent"], told["CommandName"]) == (content, "look")
    assert (told["InvocationStatus"], told["InvokeStatus"]) == ("Success", "Finished")
    (on,) = told["InvokeInstances"]["InvokeInstance"]
    assert on["InstanceId"] == web and "Output" not in on
    shown = ecs.call("describe_invocations", invoke_id=answer["InvokeId"], include_output=True)
    (on,) = shown["Invocations"]["Invocation"][0]["InvokeInstances"]["InvokeInstance"]
    assert base64.b64decode(on["Output"]).decode() == result["Output"]


def test_how_commands_end(ecs: Any, web: str, tmp_path: Path) -> None:
    def outcome(script: str, **fields: Any) -> tuple[str, str, Any]:
        _, result = ecs.command(web, script, **fields)
        return result["InvocationStatus"], result["ErrorCode"], result.get("ExitCode")

    assert outcome("exit 7") == ("Failed", "ExitCodeNonzero", 7)
    assert outcome("pwd", working_dir=str(tmp_path)) == ("Success", "", 0)
    assert outcome("pwd", working_dir=str(tmp_path / "none")) == ("Invalid", "DirectoryNotExists", None)
    late = f"(sleep 600; touch {tmp_path}/late) & echo begun; wait"
    _, result = ecs.command(web, late, timeout=1)
    assert (result["InvocationStatus"], result["ErrorCode"]) == ("Timeout", "ExecutionTimeout")
    assert result["Output"] == "begun\n" and result["InvokeRecordStatus"] == "Failed"
    # The command's whole family ended; the instance's own script did not.
    assert len(processes.marked(web)) == 1


def test_long_output_keeps_its_end(ecs: Any, web: str) -> None:
    _, result = ecs.command(web, "seq 10000")
    assert result["Output"].endswith("9999\n10000\n") and len(result["Output"]) == 24 * 1024
    assert result["Dropped"] == len("".join(f"{n}\n" for n in range(1, 10001))) - 24 * 1024


def test_output_larger_than_memory(ecs: Any, web: str) -> None:
    _, result = ecs.command(web, "truncate -s 1T /proc/self/fd/1; echo end")
    assert (result["InvocationStatus"], result["Dropped"]) == ("Success", 1024**4 + 4 - 24 * 1024)
    assert result["Output"].endswith("\0end\n")


def test_more_commands_than_anybody_counted_on(ecs: Any, host: str) -> None:
    for _ in range(40):
        begin(ecs, host, "sleep 600")
    assert ecs.command(host, "echo through")[1]["Output"] == "through\n"


def test_a_command_that_cannot_be_begun(ecs: Any, state: Path, host: str) -> None:
    (state / "instances" / host / "commands").touch()
    _, result = ecs.command(host, "true")
    assert (result["InvocationStatus"], result["ErrorCode"]) == ("Error", "ExecutionException")


@pytest.mark.parametrize("answer", [b"no JSON", b"7", b'{"return": 7}'])
def test_an_agent_that_talks_nonsense(tmp_path: Path, answer: bytes) -> None:
    def serve() -> None:
        with listener.accept()[0] as conversation:
            number = json.loads(conversation.recv(1000)[1:])["arguments"]["id"]
            conversation.sendall(b'\xff{"return": %d}\n%s\n' % (number, answer))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent"))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        with Channel(tmp_path / "agent") as channel, pytest.raises(NoAnswer):
            channel.execute("guest-ping", {})
        thread.join()


def test_a_command_is_stopped(ecs: Any, web: str, tmp_path: Path) -> None:
    invoke_id = begin(ecs, web, f"touch {tmp_path}/begun; sleep 600")
    wait_for(tmp_path / "begun")
    (status,) = ecs.call("describe_cloud_assistant_status", instance_id=[web])["InstanceCloudAssistantStatusSet"][
        "InstanceCloudAssistantStatus"
    ]
    assert (status["CloudAssistantStatus"], status["ActiveTaskCount"]) == ("true", 1)
    ecs.call("stop_invocation", invoke_id=invoke_id, instance_id=[web])
    result = ecs.result(invoke_id)
    assert (result["InvocationStatus"], result["InvokeRecordStatus"]) == ("Terminated", "Stopped")
    assert result["StopTime"] > "" and len(processes.marked(web)) == 1
    ecs.call("stop_invocation", invoke_id=invoke_id)  # what has ended stays as it is
    assert ecs.result(invoke_id)["InvocationStatus"] == "Terminated"
    (told,) = ecs.call("describe_invocations", invoke_id=invoke_id)["Invocations"]["Invocation"]
    assert told["InvocationStatus"] == told["InvokeStatus"] == "Stopped"


def test_a_command_ends_with_its_instance(ecs: Any, state: Path, tmp_path: Path) -> None:
    host = ecs.run_host()
    invoke_id = begin(ecs, host, f"touch {tmp_path}/begun; sleep 600")
    wait_for(tmp_path / "begun")
    ecs.release(host)
    assert ecs.result(invoke_id)["InvocationStatus"] in {"Error", "Failed"}
    assert not processes.marked(host) and not (state / "instances" / host).exists()


def test_several_instances_and_one_that_does_not_run(ecs: Any, web: str) -> None:
    stopped = ecs.run_host()
    ecs.stop(stopped)
    fields = {"type": "RunShellScript", "content_encoding": "PlainText", "command_content": "true"}
    invoke_id = ecs.call("run_command", instance_id=[web, stopped], **fields)["InvokeId"]
    deadline = time.monotonic() + 20
    while True:
        (told,) = ecs.call("describe_invocations", invoke_id=invoke_id)["Invocations"]["Invocation"]
        if told["InvocationStatus"] not in {"Pending", "Running"}:
            break
        assert time.monotonic() < deadline
    assert told["InvocationStatus"] == told["InvokeStatus"] == "PartialFailed"
    ends = {on["InstanceId"]: on["ErrorCode"] for on in told["InvokeInstances"]["InvokeInstance"]}
    assert ends == {web: "", stopped: "InstanceNotRunning"}
    mine = ecs.call("describe_invocation_results", instance_id=stopped)["Invocation"]
    assert (
        mine["TotalCount"] == 1 and mine["InvocationResults"]["InvocationResult"][0]["InvokeRecordStatus"] == "Failed"
    )
    ecs.release(stopped)


def test_pages_of_results(ecs: Any, web: str) -> None:
    host = ecs.run_host()
    sent = [ecs.command(host, "true")[0] for _ in range(3)]
    seen, token = [], None
    while token != "":
        page = ecs.call("describe_invocation_results", instance_id=host, max_results=2, next_token=token)["Invocation"]
        seen += [each["InvokeId"] for each in page["InvocationResults"]["InvocationResult"]]
        token = page["NextToken"]
    assert sorted(seen) == sorted(sent)
    ecs.release(host)


def test_refused_commands(ecs: Any, web: str) -> None:
    with ecs.refused("InvalidInstance.NotFound", 404):
        begin(ecs, "i-none", "true")
    with ecs.refused("InvalidCmdType.NotFound", 404):
        begin(ecs, web, "true", type="RunPoetry")
    with ecs.refused("InvalidInstance.NotMatch", 400):
        begin(ecs, web, "dir", type="RunBatScript")
    with ecs.refused("CmdContent.DecodeError", 403):
        begin(ecs, web, "not Base64!", content_encoding=None)
    begin(ecs, web, "#" * (18 * 1024))
    with ecs.refused("CmdContent.ExceedLimit", 403):
        begin(ecs, web, "#" * (18 * 1024 + 1))
    with ecs.refused("MissingParam.InstanceId", 400):
        ecs.call("run_command", type="RunShellScript", command_content="dHJ1ZQ==")
    with ecs.refused("InvalidParameter.WorkingDir", 400):
        begin(ecs, web, "true", working_dir="relative")
    with ecs.refused("InvalidInvokeId.NotFound", 404):
        ecs.call("stop_invocation", invoke_id="t-none")
    with ecs.refused("InvalidParameter", 400):
        begin(ecs, web, "true", resource_tag=[RunCommandRequestResourceTag(key="on")])
    with ecs.refused("InvalidRepeatMode.NotFound", 404):
        begin(ecs, web, "true", repeat_mode="EveryReboot")


def test_the_same_command_twice_runs_once(ecs: Any, web: str, tmp_path: Path) -> None:
    script = f"echo once >>{tmp_path}/count"
    first = begin(ecs, web, script, client_token="command-token")
    ecs.result(first)
    assert begin(ecs, web, script, client_token="command-token") == first
    assert (tmp_path / "count").read_text() == "once\n"
    with ecs.refused("IdempotentParameterMismatch", 403):
        begin(ecs, web, "true", client_token="command-token")


def test_commands_go_on_after_a_restart(tmp_path: Path, ecs: Any) -> None:
    """The cloud ends while one runs, and was about to begin another: nobody knows whether it did."""
    options = Options(host_instances=True, grace=1.0)
    state, gate = tmp_path / "state", tmp_path / "gate"
    cloud = LocalCloud(state, {"K": "S"}, options)
    cloud.start()
    mine = type(ecs)(cloud.endpoint, "K", "S")
    host = mine.run_host()
    script = f"touch {tmp_path}/begun; while ! [ -e {gate} ]; do sleep 0.05; done; echo through"
    invoke_id = begin(mine, host, script)
    wait_for(tmp_path / "begun")
    unknown = Invocation(
        id="t-unknown",
        created=time.time(),
        command="c-unknown",
        content=f"touch {tmp_path}/again",
        timeout=60,
        working_dir="",
        executions=[Execution(instance=host, status="Running", started=time.time())],
    )
    with cloud.cloud.store.transaction() as tx:
        tx.put(unknown)
        instance = tx.get(Instance, host)
    assert instance is not None
    # As if killed: the instance goes on.
    cloud.cloud.instances.shut_down = lambda _: None  # type: ignore[method-assign]
    cloud.stop()
    gate.touch()
    with LocalCloud(state, {"K": "S"}, options) as cloud:
        mine = type(ecs)(cloud.endpoint, "K", "S")
        result = mine.result(invoke_id)
        assert (result["InvocationStatus"], result["Output"]) == ("Success", "through\n")
        lost = mine.result("t-unknown")
        assert (lost["InvocationStatus"], lost["ErrorCode"]) == ("Error", "ExecutionInterrupted")
        assert not (tmp_path / "again").exists()
        mine.release(host)
