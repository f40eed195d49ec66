"""Rules of instances, and host instances as the quickest of them."""

import base64
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from alibabacloud_ecs20140526 import models

from wavelift.localcloud.entities import Instance
from wavelift.localcloud.faults.rules import Rule
from wavelift.localcloud.model.context import Options
from wavelift.localcloud.runtimes import processes
from wavelift.localcloud.server import LocalCloud
from wavelift.localcloud.states import InstanceStatus

WEB = """#!/bin/sh
echo "$INSTANCE_ID at $INSTANCE_ADDRESS in $PWD"
env > environment
exec python3 -m http.server --bind "$INSTANCE_ADDRESS" 8080
"""


def wait_for(url: str) -> httpx.Response:
    deadline = time.monotonic() + 15
    while True:
        try:
            return httpx.get(url, trust_env=False)
        except httpx.ConnectError:
            assert time.monotonic() < deadline, f"nobody answers at {url}"
            time.sleep(0.05)


def test_life_of_a_host_instance(ecs: Any, server: LocalCloud, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET", "hidden")
    order = {"internet_max_bandwidth_out": 5, "instance_name": "web", "tags": {"wave": "3"}}
    with server.cloud.engine.hold_clock():
        instance_id = ecs.run("host-linux", WEB, **order)
        assert ecs.instance(instance_id)["Status"] == "Pending"
        with ecs.refused("IncorrectInstanceStatus.Initializing", 403):
            ecs.call("delete_instance", instance_id=instance_id, force=True)
    assert instance_id.startswith("i-") and len(instance_id) == 22
    instance = ecs.wait(ecs.instance, instance_id, "Running")
    (address,) = instance["PublicIpAddress"]["IpAddress"]
    assert instance["VpcAttributes"]["PrivateIpAddress"]["IpAddress"] == [address]
    assert address.startswith("127.") and not address.startswith("127.0.0.")
    assert (instance["InstanceName"], instance["Cpu"], instance["Memory"]) == ("web", 2, 4096)
    seen = wait_for(f"http://{address}:8080/environment").text
    assert "SOME_SECRET" not in seen and f"INSTANCE_ID={instance_id}" in seen
    assert ecs.wait_console(instance_id, " in ").startswith(f"{instance_id} at {address}")
    with ecs.refused("IncorrectInstanceStatus", 403):
        ecs.call("delete_instance", instance_id=instance_id)
    with ecs.refused("IncorrectInstanceStatus", 403):
        ecs.call("start_instance", instance_id=instance_id)
    with ecs.refused("OperationDenied", 403):
        ecs.call("get_instance_screenshot", instance_id=instance_id)
    with server.cloud.engine.hold_clock():
        ecs.call("stop_instance", instance_id=instance_id)
        assert ecs.instance(instance_id)["Status"] == "Stopping"
    ecs.wait(ecs.instance, instance_id, "Stopped")
    assert not processes.marked(instance_id)
    ecs.call("start_instance", instance_id=instance_id)
    ecs.wait(ecs.instance, instance_id, "Running")
    assert wait_for(f"http://{address}:8080/").status_code == 200
    ecs.call("reboot_instance", instance_id=instance_id)
    ecs.wait(ecs.instance, instance_id, "Running")
    assert ecs.console(instance_id).count(f"{instance_id} at") == 3
    ecs.release(instance_id)
    assert not processes.marked(instance_id)
    assert not (state / "instances" / instance_id).exists()


def test_disks_come_and_go_in_the_device_folder(ecs: Any, state: Path, host: str) -> None:
    devices = state / "instances" / host / "devices"
    disk_id = ecs.new_disk()
    ecs.attach(disk_id, host)
    link = devices / f"virtio-{disk_id.removeprefix('d-')}"
    assert link.samefile(state / "disks" / f"{disk_id}.raw")
    ecs.stop(host)
    ecs.detach(disk_id, host)
    ecs.call("start_instance", instance_id=host)
    ecs.wait(ecs.instance, host, "Running")
    assert list(devices.iterdir()) == []


def test_a_disk_that_is_being_attached_while_the_instance_starts(
    ecs: Any, server: LocalCloud, state: Path, host: str
) -> None:
    ecs.stop(host)
    first, second = ecs.new_disk(), ecs.new_disk()
    ecs.attach(second, host)
    with server.cloud.engine.hold_clock():
        ecs.call("attach_disk", disk_id=first, instance_id=host)
        ecs.call("detach_disk", disk_id=second, instance_id=host)
        ecs.call("start_instance", instance_id=host)
    ecs.wait(ecs.instance, host, "Running")
    ecs.wait(ecs.disk, first, "In_use")
    links = (state / "instances" / host / "devices").iterdir()
    assert [link.name for link in links] == [f"virtio-{first.removeprefix('d-')}"]


def test_disks_go_with_the_instance_or_stay(ecs: Any) -> None:
    disk = models.RunInstancesRequestDataDisk
    size = {"size": 1, "category": "cloud_essd", "performance_level": "PL0"}
    host = ecs.run("host-linux", "sleep 600", data_disk=[disk(**size), disk(**size, delete_with_instance=False)])
    ecs.wait(ecs.instance, host, "Running")
    attached = ecs.new_disk()
    ecs.attach(attached, host)
    disks = {d["Device"]: d["DiskId"] for d in ecs.call("describe_disks", instance_id=host)["Disks"]["Disk"]}
    ecs.release(host)
    left = {device: ecs.disk(disk_id)["Status"] for device, disk_id in disks.items()}
    assert left == {"/dev/xvda": "gone", "/dev/xvdb": "gone", "/dev/xvdc": "Available", "/dev/xvdd": "Available"}


def test_a_script_that_ends_is_a_stopped_instance(ecs: Any) -> None:
    host = ecs.run("host-linux", "sleep 600 & echo bye")
    ecs.wait(ecs.instance, host, "Stopped")
    assert "bye" in ecs.console(host)
    assert not processes.marked(host)  # what it left in the background ended with it
    ecs.release(host)


def test_a_script_that_does_not_end_when_asked(ecs: Any) -> None:
    stubborn = "#!/bin/bash\ntrap 'echo asked' TERM\necho ready\nwhile true; do sleep 0.1; done"
    host = ecs.run_host(stubborn)
    ecs.wait_console(host, "ready")
    ecs.call("stop_instance", instance_id=host)
    ecs.wait(ecs.instance, host, "Stopped")
    assert "asked" in ecs.console(host) and not processes.marked(host)
    ecs.release(host)


def test_a_killed_instance_is_noticed(ecs: Any, host: str) -> None:
    for pid in processes.marked(host):
        os.kill(pid, signal.SIGKILL)
    ecs.wait(ecs.instance, host, "Stopped")
    assert ecs.call("describe_instance_status", instance_id=[host])["InstanceStatuses"]["InstanceStatus"] == [
        {"InstanceId": host, "Status": "Stopped"}
    ]


def fails(server: LocalCloud, state: str) -> None:
    """The next instance that is in this state."""
    fault = {"kind": "failed-transition", "of": "instance", "state": state}
    server.faults.add([Rule.model_validate({"fault": fault, "times": 1})])


def test_a_reboot_that_fails_leaves_nothing_running(ecs: Any, server: LocalCloud, host: str) -> None:
    fails(server, "Starting")
    ecs.call("reboot_instance", instance_id=host)
    ecs.wait(ecs.instance, host, "Stopped")
    assert not processes.marked(host)
    ecs.call("start_instance", instance_id=host)
    ecs.wait(ecs.instance, host, "Running")


def test_no_process_outlives_the_cloud(ecs: Any, tmp_path: Path) -> None:
    """Not even one that the state knows nothing of."""
    with LocalCloud(tmp_path, {"K": "S"}, Options(host_instances=True, grace=1.0)) as server:
        host = type(ecs)(server.endpoint, "K", "S").run_host()
        with server.cloud.store.transaction() as tx:
            instance = tx.get(Instance, host)
            assert instance is not None
            instance.become(InstanceStatus.STOPPED)
            instance.pid = instance.ticks = 0
            tx.put(instance)
    assert not processes.marked(host)


def test_nobody_waits_for_a_reboot(ecs: Any, tmp_path: Path) -> None:
    with LocalCloud(tmp_path, {"K": "S"}, Options(host_instances=True)) as server:
        mine = type(ecs)(server.endpoint, "K", "S")
        host = mine.run_host("#!/bin/bash\ntrap 'echo asked' TERM\necho ready\nwhile true; do sleep 0.1; done")
        mine.wait_console(host, "ready")
        disk_id = mine.new_disk()
        mine.attach(disk_id, host)
        before = set(processes.marked(host))
        mine.call("reboot_instance", instance_id=host)
        mine.wait_console(host, "asked")
        with mine.refused("IncorrectDiskStatus", 403):
            mine.call("delete_disk", disk_id=disk_id)
        with mine.refused("IncorrectInstanceStatus", 403):
            mine.call("create_snapshot", disk_id=disk_id)
        left = before & set(processes.marked(host))
        assert left  # it is still being waited for
        processes.send(list(left), signal.SIGKILL)
        mine.wait(mine.instance, host, "Running")


def test_an_instance_whose_disks_cannot_be_made_is_gone(ecs: Any, server: LocalCloud) -> None:
    fails(server, "Pending")
    before = ecs.call("describe_disks")["TotalCount"]
    order = {"private_ip_address": "172.16.0.77", "client_token": "no-disks"}
    first = ecs.run("host-linux", "exec sleep 600", **order)
    ecs.wait(ecs.instance, first, "gone")
    assert ecs.call("describe_disks")["TotalCount"] == before
    again = ecs.run("host-linux", "exec sleep 600", **order)
    assert again != first
    ecs.wait(ecs.instance, again, "Running")
    ecs.release(again)


def test_client_token_and_dry_run(ecs: Any) -> None:
    first = ecs.run("host-linux", "sleep 600", client_token="run-token")
    assert ecs.run("host-linux", "sleep 600", client_token="run-token") == first
    with ecs.refused("IdempotentParameterMismatch", 400):
        ecs.run("host-linux", "sleep 601", client_token="run-token")
    before = ecs.call("describe_instances")["TotalCount"]
    with ecs.refused("DryRunOperation", 400):
        ecs.run("host-linux", "sleep 600", dry_run=True)
    assert ecs.call("describe_instances")["TotalCount"] == before
    ecs.wait(ecs.instance, first, "Running")
    for action in ("stop_instance", "reboot_instance"):
        with ecs.refused("DryRunOperation", 400):
            ecs.call(action, instance_id=first, dry_run=True)
    ecs.release(first)


def test_refused_orders(ecs: Any) -> None:
    with ecs.refused("InvalidImageId.NotFound", 404):
        ecs.run("m-none")
    with ecs.refused("InvalidInstanceType.ValueNotSupported", 400):
        ecs.run("host-linux", instance_type="ecs.t1.tiny")
    with ecs.refused("InvalidVSwitchId.NotFound", 404):
        ecs.run("host-linux", v_switch_id="vsw-none")
    with ecs.refused("InvalidSecurityGroupId.NotFound", 404):
        ecs.run("host-linux", security_group_id="sg-none")
    with ecs.refused("MissingParameter", 400):
        ecs.run("host-linux", security_group_id=None)
    with ecs.refused("InvalidParameter.MinAmount", 400):
        ecs.run("host-linux", amount=2, min_amount=3)
    with ecs.refused("InvalidInstanceName.Malformed", 400):
        ecs.run("host-linux", instance_name="1st")
    with ecs.refused("InvalidHostName.Malformed", 400):
        ecs.run("host-linux", host_name="-web")
    with ecs.refused("InvalidPassword.Malformed", 400):
        ecs.run("host-linux", password="simple")
    with ecs.refused("InvalidParameter.Conflict", 400):
        ecs.run("host-linux", security_group_ids=["sg-local-default"])
    with ecs.refused("InvalidInstanceId.NotFound", 404):
        ecs.call("stop_instance", instance_id="i-none")
    small = models.RunInstancesRequestSystemDisk(size="1")
    with ecs.refused("InvalidSystemDiskSize.ValueNotSupported", 400):
        ecs.run("host-linux", system_disk=small)


def test_what_would_end_otherwise_is_refused(ecs: Any, host: str) -> None:
    disk = models.ModifyInstanceSpecRequestDisk(category="cloud_essd")
    for action, fields in (
        ("stop_instance", {"hibernate": True}),
        ("stop_instance", {"stopped_mode": "KeepCharging"}),
        ("modify_instance_spec", {"internet_max_bandwidth_out": 1, "disk": [disk]}),
    ):
        with ecs.refused("InvalidParameter", 400):
            ecs.call(action, instance_id=host, **fields)
    with ecs.refused("InvalidParameter", 400):
        ecs.call("stop_instances", instance_id=[host], stopped_mode="KeepCharging")
    ecs.call("stop_instance", instance_id=host, stopped_mode="StopCharging", force_stop=True)
    ecs.wait(ecs.instance, host, "Stopped")


def test_device_names_of_data_disks(ecs: Any) -> None:
    disk = models.RunInstancesRequestDataDisk

    def disks(*devices: str | None) -> dict[str, Any]:
        return {"data_disk": [disk(size=20, device=device) for device in devices]}

    for device in ("/dev/xvda", "whatever"):
        with ecs.refused("InvalidDevice.Malformed", 400):
            ecs.run("host-linux", **disks(device))
    with ecs.refused("InvalidParameter", 400):
        ecs.run("host-linux", **disks("/dev/xvdd", "/dev/xvdd"))
    letters = "bcdefghijklmnopqrstuvwxyz"
    with ecs.refused("InstanceDiskLimitExceeded", 403):
        ecs.run("host-linux", **disks(*(f"/dev/xvd{letter}" for letter in letters), None))


def test_finding_instances(ecs: Any) -> None:
    host = ecs.run_host(instance_name="needle", v_switch_id="vsw-local-b", tags={"find": "me"})
    address = ecs.instance(host)["VpcAttributes"]["PrivateIpAddress"]["IpAddress"][0]
    for fields in (
        {"instance_name": "needle"},
        {"tags": {"find": "me"}},
        {"zone_id": "cn-local-b"},
        {"private_ip_addresses": json.dumps([address])},
    ):
        found = ecs.call("describe_instances", **fields)["Instances"]["Instance"]
        assert [i["InstanceId"] for i in found] == [host], fields
    assert ecs.call("describe_instances", public_ip_addresses=json.dumps([address]))["TotalCount"] == 0
    ecs.release(host)


def test_several_at_once(ecs: Any) -> None:
    ids = many(ecs, amount=3, instance_name="web-[8,2]-x", host_name="web", unique_suffix=True)
    names = [(ecs.instance(each)["InstanceName"], ecs.instance(each)["HostName"]) for each in ids]
    assert names == [("web-08-x", "web001"), ("web-09-x", "web002"), ("web-10-x", "web003")]
    token = {"amount": 2, "client_token": "several"}
    more = many(ecs, **token)
    assert many(ecs, **token) == more
    for each in ids + more:
        ecs.wait(ecs.instance, each, "Running")
    batch = {"instance_id": ids, "force_stop": True}
    answers = ecs.call("stop_instances", **batch)["InstanceResponses"]["InstanceResponse"]
    assert [(a["InstanceId"], a["PreviousStatus"], a["CurrentStatus"]) for a in answers] == [
        (each, "Running", "Stopping") for each in ids
    ]
    for each in ids:
        ecs.wait(ecs.instance, each, "Stopped")
    # All or none, unless it is asked for otherwise.
    with ecs.refused("IncorrectInstanceStatus", 403):
        ecs.call("stop_instances", instance_id=[more[0], ids[0]], force_stop=True)
    assert ecs.instance(more[0])["Status"] == "Running"
    fields = {"instance_id": [more[0], ids[0]], "batch_optimization": "SuccessFirst"}
    codes = [a["Code"] for a in ecs.call("stop_instances", **fields)["InstanceResponses"]["InstanceResponse"]]
    assert codes == ["200", "IncorrectInstanceStatus"]
    ecs.wait(ecs.instance, more[0], "Stopped")
    ecs.call("start_instances", instance_id=ids[:2])
    for each in ids[:2]:
        ecs.wait(ecs.instance, each, "Running")
    ecs.call("reboot_instances", instance_id=ids[:2], force_reboot=True)
    for each in ids[:2]:
        ecs.wait(ecs.instance, each, "Running")
    with ecs.refused("DryRunOperation", 400):
        ecs.call("delete_instances", instance_id=ids, force=True, dry_run=True)
    gone = {"instance_id": ids + more, "force": True, "client_token": "gone"}
    ecs.call("delete_instances", **gone)
    for each in ids + more:
        ecs.wait(ecs.instance, each, "gone")
    ecs.call("delete_instances", **gone)  # the same request again


def many(ecs: Any, **fields: Any) -> list[str]:
    values = {
        "instance_type": "ecs.c7.large",
        "v_switch_id": "vsw-local-a",
        "security_group_id": "sg-local-default",
        "image_id": "host-linux",
        "user_data": base64.b64encode(b"exec sleep 600").decode(),
    }
    ids: list[str] = ecs.call("run_instances", **(values | fields))["InstanceIdSets"]["InstanceIdSet"]
    return ids


def test_create_instance_makes_a_stopped_one(ecs: Any) -> None:
    instance_id = ecs.call(
        "create_instance",
        image_id="host-linux",
        instance_type="ecs.g7.large",
        v_switch_id="vsw-local-b",
        security_group_id="sg-local-default",
        key_pair_name="mine",
        tags={"wave": "1"},
        system_disk=models.CreateInstanceRequestSystemDisk(
            size=20, category="cloud_ssd", disk_name="root-disk", description="boots"
        ),
        data_disk=[models.CreateInstanceRequestDataDisk(size=20, category="cloud_efficiency", device="/dev/xvdd")],
    )["InstanceId"]
    instance = ecs.wait(ecs.instance, instance_id, "Stopped")
    assert (instance["KeyPairName"], instance["ZoneId"], instance["StartTime"]) == ("mine", "cn-local-b", "")
    disks = ecs.call("describe_disks", instance_id=instance_id)["Disks"]["Disk"]
    assert [(d["Type"], d["Device"], d["Category"], d["DiskName"], d["Status"]) for d in disks] == [
        ("system", "/dev/xvda", "cloud_ssd", "root-disk", "In_use"),
        ("data", "/dev/xvdd", "cloud_efficiency", "", "In_use"),
    ]
    # An instance's tags are its disks' too.
    assert all(disk["Tags"]["Tag"] == [{"TagKey": "wave", "TagValue": "1"}] for disk in disks)
    ecs.call("start_instance", instance_id=instance_id)
    ecs.wait(ecs.instance, instance_id, "Running")
    ecs.release(instance_id)


def test_a_created_instance_has_no_public_address_before_it_gets_one(ecs: Any) -> None:
    values = {"image_id": "host-linux", "v_switch_id": "vsw-local-a", "security_group_id": "sg-local-default"}
    values["instance_type"] = "ecs.g7.large"
    reached = ecs.call("create_instance", **values, internet_max_bandwidth_out=1)["InstanceId"]
    closed = ecs.call("create_instance", **values)["InstanceId"]
    for each in (reached, closed):
        ecs.wait(ecs.instance, each, "Stopped")
    assert ecs.instance(reached)["PublicIpAddress"]["IpAddress"] == []
    given = ecs.call("allocate_public_ip_address", instance_id=reached)["IpAddress"]
    assert ecs.instance(reached)["PublicIpAddress"]["IpAddress"] == [given]
    with ecs.refused("AllocatedAlready", 403):
        ecs.call("allocate_public_ip_address", instance_id=reached)
    with ecs.refused("OperationDenied", 403):
        ecs.call("allocate_public_ip_address", instance_id=closed)
    for each in (reached, closed):
        ecs.release(each)


def test_a_private_address_of_ones_own(ecs: Any) -> None:
    first = ecs.run_host(private_ip_address="172.16.0.9", internet_max_bandwidth_out=1)
    instance = ecs.instance(first)
    assert instance["VpcAttributes"]["PrivateIpAddress"]["IpAddress"] == ["172.16.0.9"]
    assert instance["PublicIpAddress"]["IpAddress"][0].startswith("127.")
    for address, code in (
        ("172.16.0.9", "InvalidPrivateIpAddress.Duplicated"),
        ("172.16.1.9", "InvalidPrivateIpAddress"),
        ("172.16.0.255", "InvalidPrivateIpAddress"),
        ("nine", "InvalidPrivateIpAddress.Malformed"),
    ):
        with ecs.refused(code, 400):
            ecs.run("host-linux", private_ip_address=address)
    ecs.release(first)
    again = ecs.run_host(private_ip_address="172.16.0.9")
    ecs.release(again)


def test_attributes(ecs: Any, host: str) -> None:
    changes = {"instance_name": "new-name", "host_name": "new-host", "description": "new text", "password": "Abc12345"}
    ecs.call("modify_instance_attribute", instance_id=host, **changes)
    ecs.call("modify_instance_attribute", instance_id=host, user_data=base64.b64encode(b"echo new; sleep 600").decode())
    shown = ecs.call("describe_instance_attribute", instance_id=host)
    assert (shown["InstanceName"], shown["HostName"], shown["Description"]) == ("new-name", "new-host", "new text")
    for field, value, code in (
        ("instance_name", "x", "InvalidInstanceName.Malformed"),
        ("host_name", "a..b", "InvalidHostName.Malformed"),
        ("description", "http://x", "InvalidDescription.Malformed"),
        ("password", "short", "InvalidPassword.Malformed"),
    ):
        with ecs.refused(code, 400):
            ecs.call("modify_instance_attribute", instance_id=host, **{field: value})
    with ecs.refused("IncorrectInstanceStatus", 403):
        ecs.call("modify_instance_spec", instance_id=host, instance_type="ecs.g7.xlarge")
    ecs.stop(host)
    ecs.call("modify_instance_spec", instance_id=host, instance_type="ecs.g7.xlarge")
    ecs.call("modify_instance_spec", instance_id=host, internet_max_bandwidth_out=5)
    with ecs.refused("InvalidInstanceType.ValueNotSupported", 400):
        ecs.call("modify_instance_spec", instance_id=host, instance_type="ecs.none")
    instance = ecs.instance(host)
    assert (instance["InstanceType"], instance["Cpu"], instance["Memory"]) == ("ecs.g7.xlarge", 4, 16384)
    assert len(instance["PublicIpAddress"]["IpAddress"]) == 1
    ecs.call("start_instance", instance_id=host)
    ecs.wait_console(host, "new")
    ecs.wait(ecs.instance, host, "Running")


def test_a_host_name_while_it_starts(ecs: Any, server: LocalCloud, host: str) -> None:
    ecs.stop(host)
    with server.cloud.engine.hold_clock():
        ecs.call("start_instance", instance_id=host)
        for changes in ({"host_name": "later"}, {"password": "Abc12345"}):
            with ecs.refused("IncorrectInstanceStatus", 403):
                ecs.call("modify_instance_attribute", instance_id=host, **changes)
    ecs.wait(ecs.instance, host, "Running")


def test_filters(ecs: Any) -> None:
    host = ecs.run_host(instance_name="find-me", key_pair_name="pair", instance_type="ecs.g7.large")
    for fields in (
        {"instance_name": "find*"},
        {"key_pair_name": "pair"},
        {"instance_type_family": "ecs.g7", "instance_charge_type": "PostPaid", "io_optimized": True},
    ):
        found = ecs.call("describe_instances", **fields)["Instances"]["Instance"]
        assert [i["InstanceId"] for i in found] == [host], fields
    for fields in (
        {"instance_name": "find"},
        {"instance_charge_type": "PrePaid"},
        {"lock_reason": "security"},
        {"ipv_6address": ["2001:db8::1"]},
        {"inner_ip_addresses": '["10.0.0.1"]'},
    ):
        assert ecs.call("describe_instances", **fields)["TotalCount"] == 0
    with ecs.refused("DryRunOperation", 400):
        ecs.call("describe_instances", dry_run=True)
    ecs.release(host)


def test_tags(ecs: Any, host: str) -> None:
    tag = models.TagResourcesRequestTag
    disk_id = ecs.new_disk()
    fields = {"resource_type": "disk", "resource_id": [disk_id]}
    ecs.call("tag_resources", **fields, tag=[tag(key="a", value="1"), tag(key="b", value="2")])
    ecs.call("tag_resources", **fields, tag=[tag(key="a", value="3")])
    found = ecs.call("list_tag_resources", **fields)["TagResources"]["TagResource"]
    assert {t["TagKey"]: t["TagValue"] for t in found} == {"a": "3", "b": "2"}
    ecs.call("untag_resources", **fields, tag_key=["a"])
    assert ecs.disk(disk_id)["Tags"]["Tag"] == [{"TagKey": "b", "TagValue": "2"}]
    ecs.call("untag_resources", **fields, all=True)
    assert ecs.disk(disk_id)["Tags"]["Tag"] == []
    ecs.call("tag_resources", resource_type="instance", resource_id=[host], tag=[tag(key="on", value="host")])
    found = ecs.call("list_tag_resources", resource_type="instance", tags={"on": "host"})
    assert [t["ResourceId"] for t in found["TagResources"]["TagResource"]] == [host]
    with ecs.refused("InvalidResourceId.NotFound", 404):
        ecs.call("tag_resources", resource_type="disk", resource_id=["d-none"], tag=[tag(key="a", value="1")])
    with ecs.refused("InvalidResourceType.NotFound", 404):
        ecs.call("tag_resources", resource_type="moon", resource_id=["x"], tag=[tag(key="a", value="1")])
    with ecs.refused("InvalidTagKey.Malformed", 400):
        ecs.call("tag_resources", **fields, tag=[tag(key="acs:x", value="1")])


def test_no_host_image_unless_allowed(tmp_path: Path, ecs: Any) -> None:
    with LocalCloud(tmp_path, {"K": "S"}, Options()) as server:
        closed = type(ecs)(server.endpoint, "K", "S")
        assert closed.call("describe_images")["TotalCount"] == 0
        with closed.refused("InvalidImageId.NotFound", 404):
            closed.run("host-linux", "true")
    found = ecs.call("describe_images", image_owner_alias="system")["Images"]["Image"]
    assert [i["ImageId"] for i in found] == ["host-linux"]
