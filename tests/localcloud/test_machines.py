"""Instances as machines: one really boots, from an image made the way a migration makes one."""

import base64
import io
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_ecs20140526 import models
from PIL import Image

from wavelift.localcloud.entities import Instance
from wavelift.localcloud.model.context import Options
from wavelift.localcloud.runtimes import accelerator, machines, processes
from wavelift.localcloud.runtimes.accelerator import boot_sector
from wavelift.localcloud.runtimes.metadata import answer, serve
from wavelift.localcloud.runtimes.qemu import MEMORY_LIMIT, Machine, MachineDisk, command_line
from wavelift.localcloud.runtimes.qmp import QmpError
from wavelift.localcloud.server import LocalCloud

HELLO = "hello from a boot sector"


def machine(**changes: Any) -> Machine:
    values: dict[str, Any] = {
        "id": "i-1",
        "cores": 2,
        "memory": 1024,
        "mac": "52:54:00:00:00:01",
        "address": "127.9.8.7",
        "ports": (22, 80),
        "disks": (MachineDisk("system", Path("/a,b/d-system.raw")), MachineDisk("data", Path("/a/d-data.raw"))),
        "console": Path("/a,b/console.log"),
        "control": Path("/tmp/c.sock"),
        "agent": Path("/tmp/a.sock"),
        "metadata": Path("/a,b/metadata.json"),
        "variables": None,
    }
    return Machine(**(values | changes))


def pairs(command: list[str], option: str) -> list[str]:
    return [command[n + 1] for n, word in enumerate(command) if word == option]


def test_the_command_line() -> None:
    command = command_line(machine(), ["-accel", "tcg"])
    assert command[0] == "qemu-system-x86_64" and pairs(command, "-accel") == ["tcg"]
    assert (pairs(command, "-smp"), pairs(command, "-m")) == (["2"], ["1024"])
    nodes = [json.loads(text) for text in pairs(command, "-blockdev")]
    assert [node["file"]["filename"] for node in nodes] == ["/a,b/d-system.raw", "/a/d-data.raw"]
    disks = [json.loads(text) for text in pairs(command, "-device") if text.startswith("{")]
    assert [(d["driver"], d["serial"], d.get("bootindex")) for d in disks] == [
        ("virtio-blk-pci", "system", 1),
        ("virtio-blk-pci", "data", None),
    ]
    assert all(disk["werror"] == "report" for disk in disks)
    (network,) = pairs(command, "-netdev")
    assert network.endswith(",hostfwd=tcp:127.9.8.7:22-:22,hostfwd=tcp:127.9.8.7:80-:80")
    assert ",guestfwd=tcp:100.100.100.200:80-cmd:" in network and "/a,,b/metadata.json" in network
    console, agent = pairs(command, "-chardev")
    assert console == "file,id=console,path=/a,,b/console.log,append=on"
    assert agent == "socket,id=agent,path=/tmp/a.sock,server=on,wait=off"
    assert "virtserialport,chardev=agent,name=org.qemu.guest_agent.0" in pairs(command, "-device")
    assert pairs(command, "-drive") == []


def test_a_machine_with_uefi() -> None:
    code, variables = pairs(command_line(machine(variables=Path("/a,b/vars.fd")), []), "-drive")
    assert "readonly=on" in code and code.endswith("OVMF_CODE_4M.fd")
    assert "readonly" not in variables and variables.endswith("file=/a,,b/vars.fd")


def test_what_the_metadata_service_answers() -> None:
    values = {"meta-data/instance-id": "i-1", "meta-data/instance/type": "t", "user-data": "#!"}
    assert answer(values, "/latest/meta-data/instance-id") == "i-1"
    assert answer(values, "/latest/meta-data") == "instance-id\ninstance/"
    assert answer(values, "/latest/") == "meta-data/\nuser-data"
    assert answer(values, "/latest/meta-data/x") is None and answer(values, "/other") is None
    sink = io.BytesIO()
    serve(values, io.BytesIO(b"HEAD /latest/user-data HTTP/1.1\r\nHost: x\r\n\r\n"), sink)
    assert sink.getvalue().startswith(b"HTTP/1.1 200 OK\r\n") and sink.getvalue().endswith(b"\r\n\r\n")
    for line in (b"POST /latest/user-data HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n", b""):
        sink = io.BytesIO()
        serve(values, io.BytesIO(line), sink)
        assert sink.getvalue().startswith(b"HTTP/1.1 404 ")


def test_only_virtio_devices() -> None:
    command = command_line(machine(), [])
    devices = [json.loads(t)["driver"] if t.startswith("{") else t.split(",")[0] for t in pairs(command, "-device")]
    assert all(name.startswith("virt") for name in devices) and "-nodefaults" in command


def test_a_boot_sector_has_its_signature_and_its_limit() -> None:
    assert len(boot_sector("x")) == 512 and boot_sector("x").endswith(b"\x55\xaa")
    with pytest.raises(ValueError, match="does not fit"):
        boot_sector("x" * 500)


def test_the_probe_boots_something() -> None:
    assert accelerator._boots(["-accel", "tcg"], limit=15)
    assert not accelerator._boots(["-accel", "no-such-accelerator"])


@pytest.fixture(scope="module")
def image(ecs: Any, state: Path) -> str:
    return make_image(ecs, state)


def make_image(ecs: Any, state: Path) -> str:
    """Disk, attached to a helper, written, snapshot, image."""
    host = ecs.run_host()
    disk_id = ecs.new_disk()
    ecs.attach(disk_id, host)
    link = state / "instances" / host / "devices" / f"virtio-{disk_id.removeprefix('d-')}"
    with link.open("r+b") as disk:
        disk.write(boot_sector(HELLO))
    image_id: str = ecs.new_image(ecs.new_snapshot(disk_id), image_name="boots")
    ecs.release(host)
    return image_id


@pytest.fixture(scope="module")
def group(ecs: Any) -> str:
    name: str = ecs.call("create_security_group", vpc_id="vpc-local")["SecurityGroupId"]
    authorize(ecs, name, "2222/2222")
    return name


def authorize(ecs: Any, group: str, ports: str) -> None:
    fields = {"ip_protocol": "tcp", "port_range": ports, "source_cidr_ip": "0.0.0.0/0"}
    ecs.call("authorize_security_group", security_group_id=group, **fields)


@pytest.fixture(scope="module")
def booted(ecs: Any, image: str, group: str) -> Iterator[str]:
    instance_id = ecs.run(image, security_group_id=group, internet_max_bandwidth_out=1)
    ecs.wait(ecs.instance, instance_id, "Running")
    yield instance_id
    if ecs.instance(instance_id)["Status"] != "gone":
        ecs.release(instance_id)


def kept(server: LocalCloud, instance_id: str) -> Instance:
    return next(instance for instance in server.cloud.instances.all() if instance.id == instance_id)


def forwards(server: LocalCloud, instance_id: str) -> dict[str, str]:
    """The address and guest port of each forward, out of QEMU's table."""
    table = server.cloud.machines.forwards(kept(server, instance_id))
    return {m[2]: m[1] for m in re.finditer(r"TCP\[HOST_FORWARD\]\s+\S+\s+(\S+)\s+(\d+)\s", table)}


def test_it_boots_and_speaks(ecs: Any, booted: str) -> None:
    assert HELLO in ecs.wait_console(booted, HELLO)


def test_its_screen(ecs: Any, booted: str) -> None:
    text = ecs.call("get_instance_screenshot", instance_id=booted)["Screenshot"]
    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        assert picture.format == "JPEG"
        assert picture.width >= 640 and picture.height >= 350
        # The firmware writes light text on black.
        extremes = picture.convert("L").getextrema()
    assert extremes[0] < 50 < 150 < extremes[1]
    with ecs.refused("Throttling", 400):
        ecs.call("get_instance_screenshot", instance_id=booted, wake_up=True)


def test_its_ports_open_while_it_runs(ecs: Any, server: LocalCloud, booted: str, group: str) -> None:
    address = ecs.instance(booted)["PublicIpAddress"]["IpAddress"][0]
    assert forwards(server, booted) == {"2222": address}
    authorize(ecs, group, "8080/8081")
    authorize(ecs, group, "1/65535")  # too wide to forward
    assert forwards(server, booted) == {"2222": address, "8080": address, "8081": address}
    rule = {"ip_protocol": "tcp", "port_range": "8080/8081", "source_cidr_ip": "0.0.0.0/0"}
    ecs.call("revoke_security_group", security_group_id=group, **rule)
    assert forwards(server, booted) == {"2222": address}


def test_it_hears_that_a_disk_has_grown(ecs: Any, server: LocalCloud, booted: str) -> None:
    system = ecs.call("describe_disks", instance_id=booted)["Disks"]["Disk"][0]

    def seen() -> int:
        with server.cloud.machines.talk(kept(server, booted)) as qmp:
            nodes = qmp.execute("query-named-block-nodes", {"flat": True})
        return next(n["image"]["virtual-size"] for n in nodes if n["node-name"] == f"disk-{system['SerialNumber']}")

    assert seen() == 1024**3
    ecs.call("resize_disk", disk_id=system["DiskId"], new_size=2)  # offline
    assert seen() == 1024**3
    ecs.call("resize_disk", disk_id=system["DiskId"], new_size=3, type="online")
    assert seen() == 3 * 1024**3


def test_a_snapshot_of_a_running_machine(ecs: Any, state: Path, booted: str) -> None:
    system = ecs.call("describe_disks", instance_id=booted)["Disks"]["Disk"][0]["DiskId"]
    snapshot_id = ecs.new_snapshot(system)
    with (state / "snapshots" / f"{snapshot_id}.raw").open("rb") as file:
        assert file.read(512) == boot_sector(HELLO)
    assert ecs.snapshot(snapshot_id)["SourceDiskType"] == "system"


def test_it_goes_on_after_a_snapshot(server: LocalCloud, booted: str) -> None:
    with server.cloud.machines.talk(kept(server, booted)) as qmp:
        assert qmp.execute("query-status")["status"] == "running"


def test_a_disk_plugged_into_a_running_machine(ecs: Any, server: LocalCloud, booted: str) -> None:
    disk_id = ecs.new_disk()
    ecs.attach(disk_id, booted)
    with server.cloud.machines.talk(kept(server, booted)) as qmp:
        names = {entry["name"] for entry in qmp.execute("qom-list", {"path": "/machine/peripheral"})}
        nodes = {node["node-name"] for node in qmp.execute("query-named-block-nodes", {"flat": True})}
    serial = disk_id.removeprefix("d-")
    assert f"disk-{serial}" in names & nodes


def test_a_disk_that_cannot_be_plugged_in_is_let_go_of(ecs: Any, server: LocalCloud, image: str) -> None:
    """The machine has no slot left for it."""
    instance_id = ecs.run(image)
    ecs.wait(ecs.instance, instance_id, "Running")
    with server.cloud.machines.talk(kept(server, instance_id)) as qmp:
        with pytest.raises(QmpError, match="slot"):
            for number in range(40):
                qmp.execute("device_add", {"driver": "virtio-rng-pci", "id": f"filler-{number}"})
        disk_id = ecs.new_disk()
    ecs.call("attach_disk", disk_id=disk_id, instance_id=instance_id)
    ecs.wait(ecs.disk, disk_id, "Available")
    with server.cloud.machines.talk(kept(server, instance_id)) as qmp:
        nodes = {node["node-name"] for node in qmp.execute("query-named-block-nodes", {"flat": True})}
    assert f"disk-{disk_id.removeprefix('d-')}" not in nodes
    ecs.release(instance_id)


def test_a_guest_that_does_not_let_go_keeps_its_disk(
    ecs: Any, server: LocalCloud, booted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A boot sector knows nothing of hot-plugging."""
    monkeypatch.setattr(machines, "UNPLUG_LIMIT", 0.5)
    disk_id = ecs.new_disk()
    ecs.attach(disk_id, booted)
    with server.cloud.engine.hold_clock():
        ecs.call("detach_disk", disk_id=disk_id, instance_id=booted)
        assert ecs.disk(disk_id)["Status"] == "Detaching"
    assert ecs.wait(ecs.disk, disk_id, "In_use")["InstanceId"] == booted


def test_a_reboot_boots_again(ecs: Any, server: LocalCloud, booted: str) -> None:
    before = kept(server, booted).pid
    ecs.call("reboot_instance", instance_id=booted, force_stop=True)
    ecs.wait(ecs.instance, booted, "Running")
    assert processes.marked(booted) != [before]
    deadline = time.monotonic() + 20
    while ecs.console(booted).count(HELLO) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_deletion_ends_the_machine(ecs: Any, server: LocalCloud, booted: str) -> None:
    pid, ticks = kept(server, booted).pid, kept(server, booted).ticks
    assert processes.alive(pid, ticks)
    ecs.release(booted)
    assert not processes.alive(pid, ticks) and processes.start_ticks(pid) is None


def test_another_system_disk(ecs: Any, state: Path, image: str) -> None:
    instance_id = ecs.run(image)
    ecs.wait_console(instance_id, HELLO)
    with ecs.refused("IncorrectInstanceStatus", 403):
        ecs.call("replace_system_disk", instance_id=instance_id, image_id=image)
    ecs.stop(instance_id)
    (old,) = ecs.call("describe_disks", instance_id=instance_id)["Disks"]["Disk"]
    with (state / "disks" / f"{old['DiskId']}.raw").open("r+b") as disk:
        disk.write(b"broken")
    size = models.ReplaceSystemDiskRequestSystemDisk
    order = {"instance_id": instance_id, "image_id": image, "client_token": "replace"}
    new = ecs.call("replace_system_disk", **order, system_disk=size(size=2))["DiskId"]
    ecs.wait(ecs.disk, new, "In_use")
    assert ecs.call("replace_system_disk", **order, system_disk=size(size=2))["DiskId"] == new
    with ecs.refused("InvalidSystemDiskSize.ValueNotSupported", 400):
        ecs.call("replace_system_disk", instance_id=instance_id, image_id=image, system_disk=size(size=1))
    (disk,) = ecs.call("describe_disks", instance_id=instance_id)["Disks"]["Disk"]
    assert (disk["DiskId"], disk["Size"], disk["Type"], disk["Device"]) == (new, 2, "system", "/dev/xvda")
    assert ecs.disk(old["DiskId"])["Status"] == "gone"
    assert not (state / "disks" / f"{old['DiskId']}.raw").exists()
    ecs.call("start_instance", instance_id=instance_id)
    ecs.wait(ecs.instance, instance_id, "Running")
    deadline = time.monotonic() + 30
    while ecs.console(instance_id).count(HELLO) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ecs.release(instance_id)


def test_a_machine_that_is_killed_is_stopped(ecs: Any, server: LocalCloud, image: str) -> None:
    instance_id = ecs.run(image)
    ecs.wait(ecs.instance, instance_id, "Running")
    os.kill(kept(server, instance_id).pid, signal.SIGKILL)
    ecs.wait(ecs.instance, instance_id, "Stopped")
    ecs.release(instance_id)


def test_machines_share_the_memory_there_is(ecs: Any, tmp_path: Path) -> None:
    """Room for two of them."""
    options = Options(host_instances=True, grace=1.0, memory=2 * MEMORY_LIMIT + 1)
    with LocalCloud(tmp_path, {"K": "S"}, options) as cloud:
        mine = type(ecs)(cloud.endpoint, "K", "S")
        image = make_image(mine, tmp_path)
        with mine.refused("OperationDenied.NoStock", 403):
            mine.run(image, amount=3)
        order = {"instance_type": "ecs.c7.large", "v_switch_id": "vsw-local-a", "security_group_id": "sg-local-default"}
        disk = models.RunInstancesRequestSystemDisk(size="1", category="cloud_auto")
        answer = mine.call("run_instances", image_id=image, amount=3, min_amount=1, system_disk=disk, **order)
        first, second = answer["InstanceIdSets"]["InstanceIdSet"]
        for each in (first, second):
            mine.wait(mine.instance, each, "Running")
        with mine.refused("OperationDenied.NoStock", 403):
            mine.run(image)
        mine.stop(first)
        third = mine.run(image)
        mine.wait(mine.instance, third, "Running")
        with mine.refused("OperationDenied.NoStock", 403):
            mine.call("start_instance", instance_id=first)
        (system,) = mine.call("describe_disks", instance_id=first)["Disks"]["Disk"]
        with mine.refused("OperationDenied.NoStock", 403):
            mine.call("re_init_disk", disk_id=system["DiskId"], auto_start_instance=True)
        mine.release(second)
        mine.call("start_instance", instance_id=first)
        mine.wait(mine.instance, first, "Running")
        for each in (first, third):
            mine.release(each)


def test_a_machine_that_cannot_start_is_stopped(ecs: Any, image: str, state: Path) -> None:
    instance_id = ecs.run(image)
    ecs.wait(ecs.instance, instance_id, "Running")
    ecs.stop(instance_id)
    system = ecs.call("describe_disks", instance_id=instance_id)["Disks"]["Disk"][0]["DiskId"]
    (state / "disks" / f"{system}.raw").unlink()
    ecs.call("start_instance", instance_id=instance_id)
    ecs.wait(ecs.instance, instance_id, "Stopped")
    assert "d-" in (state / "instances" / instance_id / "qemu.log").read_text()
    ecs.release(instance_id)
