"""One guest that boots by UEFI, and everything that takes a guest which answers."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.localcloud import guest
from wavelift.localcloud.runtimes import guests
from wavelift.localcloud.server import LocalCloud

pytestmark = pytest.mark.machine
USER_DATA = "#!/bin/sh\necho told by the metadata service"


@pytest.fixture(scope="module")
def image(ecs: Any, state: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    host = ecs.run_host()
    disk_id = ecs.new_disk()
    ecs.attach(disk_id, host)
    guest.build(state / "instances" / host / "devices" / f"virtio-{disk_id[2:]}", tmp_path_factory.mktemp("guest"))
    image_id: str = ecs.new_image(ecs.new_snapshot(disk_id), boot_mode="UEFI")
    ecs.release(host)
    return image_id


@pytest.fixture(scope="module")
def machine(ecs: Any, image: str) -> Iterator[str]:
    instance_id: str = ecs.run(image, USER_DATA)
    ecs.wait(ecs.instance, instance_id, "Running")
    # The agent does not answer while the firmware still looks for what to boot.
    assert assistant(ecs, instance_id)["CloudAssistantStatus"] == "false"
    _, early = ecs.command(instance_id, "true")
    assert (early["InvocationStatus"], early["ErrorCode"]) == ("Aborted", "ClientNotRunning")
    ecs.wait_console(instance_id, guest.READY, 300)
    deadline = time.monotonic() + 60
    while assistant(ecs, instance_id)["CloudAssistantStatus"] == "false":
        assert time.monotonic() < deadline
    yield instance_id
    ecs.release(instance_id)


def assistant(ecs: Any, instance_id: str) -> dict[str, Any]:
    answer = ecs.call("describe_cloud_assistant_status", instance_id=[instance_id])
    (status,) = answer["InstanceCloudAssistantStatusSet"]["InstanceCloudAssistantStatus"]
    return dict(status)


def test_it_boots_by_its_firmware(ecs: Any, state: Path, machine: str) -> None:
    shown = ecs.console(machine)
    assert guest.GREETING in shown and guest.READY in shown
    assert (state / "instances" / machine / "uefi-variables.fd").stat().st_size > 0


def test_the_metadata_service(ecs: Any, machine: str) -> None:
    assert USER_DATA.splitlines()[1] in ecs.console(machine)
    base = "wget -q -O - http://100.100.100.200/latest"
    script = f"{base}/meta-data/instance-id; echo; {base}/meta-data/; echo; {base}/nothing 2>&1; true"
    _, result = ecs.command(machine, script)
    assert result["Output"].splitlines()[:2] == [machine, "instance-id"] and "404" in result["Output"], result


def test_a_console_without_symbols(ecs: Any, machine: str) -> None:
    # The firmware clears the screen first, by escape sequences.
    assert "\x1b[" in ecs.console(machine)
    answer = ecs.call("get_instance_console_output", instance_id=machine, remove_symbols=True)
    shown = base64.b64decode(answer["ConsoleOutput"]).decode()
    assert "\x1b" not in shown and guest.GREETING in shown
    told = time.strptime(answer["LastUpdateTime"], "%Y-%m-%d %H:%M:%S")
    assert time.time() + 8 * 3600 - time.mktime(told) < 300 + abs(time.timezone)


def test_a_command_in_the_guest(ecs: Any, machine: str) -> None:
    assert assistant(ecs, machine)["CloudAssistantStatus"] == "true"
    _, result = ecs.command(machine, "pwd; echo aside >&2; exit 3", working_dir="/sys")
    assert (result["InvocationStatus"], result["ExitCode"], result["ErrorCode"]) == ("Failed", 3, "ExitCodeNonzero")
    assert result["Output"] == "/sys\naside\n"
    _, result = ecs.command(machine, "true", working_dir="/nowhere")
    assert (result["InvocationStatus"], result["ErrorCode"]) == ("Invalid", "DirectoryNotExists")
    _, result = ecs.command(machine, "#!/bin/ash\necho $0; cat")
    assert result["InvocationStatus"] == "Success" and result["Output"].startswith("/tmp/")


def test_a_command_in_the_guest_that_takes_too_long(ecs: Any, machine: str) -> None:
    _, result = ecs.command(machine, "sleep 777 & echo begun; sleep 777", timeout=1)
    assert (result["InvocationStatus"], result["ErrorCode"]) == ("Timeout", "ExecutionTimeout")
    assert result["Output"] == "begun\n"
    _, result = ecs.command(machine, "ps | grep -c '[s]leep 777'")
    assert result["Output"] == "0\n"


def test_sixteen_data_disks_come_and_go(ecs: Any, machine: str) -> None:
    order = {"zone_id": "cn-local-a", "disk_category": "cloud_auto", "size": 1}
    disks = [ecs.call("create_disk", **order)["DiskId"] for _ in range(17)]
    for disk_id in disks:
        ecs.wait(ecs.disk, disk_id, "Available")
    for disk_id in disks[:16]:
        ecs.call("attach_disk", disk_id=disk_id, instance_id=machine)
    for disk_id in disks[:16]:
        ecs.wait(ecs.disk, disk_id, "In_use")
    with ecs.refused("InstanceDiskLimitExceeded", 403):
        ecs.call("attach_disk", disk_id=disks[16], instance_id=machine)
    serials = "for disk in /sys/block/vd*; do cat $disk/serial; echo; done"
    wanted = {disk_id.removeprefix("d-") for disk_id in disks[:16]}
    deadline = time.monotonic() + 30
    while not wanted <= set(ecs.command(machine, serials)[1]["Output"].split()):
        assert time.monotonic() < deadline
    # The guest lets go of it.
    ecs.detach(disks[3], machine)
    assert disks[3].removeprefix("d-") not in ecs.command(machine, serials)[1]["Output"].split()


def test_an_agent_that_hangs(ecs: Any, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "ANSWER_LIMIT", 1.5)
    hang = f"(sleep 1; kill -STOP $(pidof {guest.AGENT}); sleep 5; kill -CONT $(pidof {guest.AGENT})) >/dev/null 2>&1 &"
    assert ecs.command(machine, hang)[1]["InvocationStatus"] == "Success"
    deadline = time.monotonic() + 30
    while assistant(ecs, machine)["CloudAssistantStatus"] == "true":
        assert time.monotonic() < deadline
    _, result = ecs.command(machine, "true")
    assert (result["InvocationStatus"], result["ErrorCode"]) == ("Aborted", "ClientNotResponse")
    # What was asked meanwhile is answered late, and taken for no answer to what is asked now.
    while assistant(ecs, machine)["CloudAssistantStatus"] == "false":
        assert time.monotonic() < deadline
    assert ecs.command(machine, "echo again")[1]["Output"] == "again\n"


def test_it_stops_by_its_power_button_and_starts_with_all_its_disks(
    ecs: Any, server: LocalCloud, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(server.cloud.instances), "_grace", lambda self, instance: 30.0)
    ecs.call("stop_instance", instance_id=machine)
    ecs.wait(ecs.instance, machine, "Stopped", 40)
    assert "the guest ends" in ecs.console(machine)
    _, result = ecs.command(machine, "true")
    assert (result["InvocationStatus"], result["ErrorCode"]) == ("Aborted", "InstanceNotRunning")
    ecs.call("start_instance", instance_id=machine)
    ecs.wait(ecs.instance, machine, "Running")
    with server.cloud.machines.talk(server.cloud.instances.get(machine)) as qmp:
        names = {entry["name"] for entry in qmp.execute("qom-list", {"path": "/machine/peripheral"})}
    attached = ecs.call("describe_disks", instance_id=machine, page_size=20)["Disks"]["Disk"]
    assert {f"disk-{disk['DiskId'].removeprefix('d-')}" for disk in attached} <= names and len(attached) == 16
