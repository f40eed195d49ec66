import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_ecs20140526 import models

from wavelift.localcloud.server import LocalCloud

ZONE = "cn-local-a"


def test_life_of_a_disk(ecs: Any, server: LocalCloud, state: Path) -> None:
    order = {"zone_id": ZONE, "size": 40, "disk_category": "cloud_efficiency", "disk_name": "one"}
    with server.cloud.engine.hold_clock():
        disk_id = ecs.call("create_disk", **order)["DiskId"]
        assert ecs.disk(disk_id)["Status"] == "Creating"
    assert disk_id.startswith("d-") and len(disk_id) == 22
    disk = ecs.wait(ecs.disk, disk_id, "Available")
    assert (disk["Size"], disk["Category"], disk["DiskName"], disk["ZoneId"]) == (40, "cloud_efficiency", "one", ZONE)
    assert disk["SerialNumber"] == disk_id.removeprefix("d-") and len(disk["SerialNumber"]) == 20
    file = state / "disks" / f"{disk_id}.raw"
    assert file.stat().st_size == 40 * 1024**3 and file.stat().st_blocks == 0
    ecs.call("delete_disk", disk_id=disk_id)
    assert ecs.disk(disk_id)["Status"] == "gone" and not file.exists()
    ecs.call("delete_disk", disk_id=disk_id)  # unknown by now, and no error


@pytest.mark.parametrize(
    ("category", "level", "low", "high"),
    [
        ("cloud", None, 5, 2000),
        ("cloud_efficiency", None, 20, 32768),
        ("cloud_ssd", None, 20, 32768),
        ("cloud_essd", "PL0", 1, 65536),
        ("cloud_essd", None, 20, 65536),
        ("cloud_essd", "PL2", 461, 65536),
        ("cloud_essd", "PL3", 1261, 65536),
        ("cloud_auto", None, 1, 65536),
        ("cloud_essd_entry", None, 10, 32768),
    ],
)
def test_sizes(ecs: Any, category: str, level: str | None, low: int, high: int) -> None:
    fields = {"zone_id": ZONE, "disk_category": category, "performance_level": level}
    for size in {low - 1, high + 1} - {0}:
        with ecs.refused("InvalidDiskSize.NotSupported", 403):
            ecs.call("create_disk", size=size, **fields)
    ecs.call("delete_disk", disk_id=ecs.new_disk(low, disk_category=category, performance_level=level))


def test_refused_orders(ecs: Any) -> None:
    with ecs.refused("MissingParameter", 400):
        ecs.call("create_disk", zone_id=ZONE)
    with ecs.refused("InvalidParameter", 400):
        ecs.call("create_disk", zone_id=ZONE, size=0)
    with ecs.refused("InvalidZoneId.NotFound", 404):
        ecs.call("create_disk", zone_id="cn-local-z", size=5)
    with ecs.refused("InvalidDataDiskCategory.NotSupported", 400):
        ecs.call("create_disk", zone_id=ZONE, size=5, disk_category="floppy")
    with ecs.refused("InvalidSnapshotId.NotFound", 404):
        ecs.call("create_disk", zone_id=ZONE, size=5, snapshot_id="s-none")
    with ecs.refused("InvalidParameter.EncryptedNotSupported", 400):
        ecs.call("create_disk", zone_id=ZONE, size=5, encrypted=True)
    with ecs.refused("InvalidResourceGroup.NotFound", 404):
        ecs.call("create_disk", zone_id=ZONE, size=5, resource_group_id="rg-1")
    for fields in ({"multi_attach": "Enabled"}, {"instance_id": "i-1"}, {"bursting_enabled": True}):
        with ecs.refused("InvalidParameter", 400):
            ecs.call("create_disk", zone_id=ZONE, size=5, **fields)


@pytest.mark.parametrize("name", ["x", "1disk", "a b", "http://a", "x" * 129])
def test_malformed_names(ecs: Any, name: str) -> None:
    with ecs.refused("InvalidDiskName.Malformed", 400):
        ecs.call("create_disk", zone_id=ZONE, size=5, disk_name=name)


def test_malformed_descriptions(ecs: Any) -> None:
    for text in ("x", "https://a", "x" * 257):
        with ecs.refused("InvalidDescription.Malformed", 400):
            ecs.call("create_disk", zone_id=ZONE, size=5, description=text)


def test_client_token(ecs: Any) -> None:
    def order(size: int, token: str = "disk-token") -> str:
        return str(ecs.call("create_disk", zone_id=ZONE, size=size, client_token=token)["DiskId"])

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(order, [5] * 8))) == 1
    with ecs.refused("IdempotentParameterMismatch", 400):
        order(6)
    assert order(5, "another") != order(5)
    with ecs.refused("InvalidParameter", 400):
        order(5, "x" * 65)


def test_filters_and_pages(ecs: Any) -> None:
    made = [ecs.new_disk(tags={"filter": "yes", "number": str(n)}) for n in range(3)]

    def find(**fields: Any) -> list[str]:
        return [disk["DiskId"] for disk in ecs.call("describe_disks", **fields)["Disks"]["Disk"]]

    assert find(tags={"filter": "yes"}) == made
    assert find(tags={"filter": None}) == made
    assert find(tags={"filter": "yes", "number": "1"}) == [made[1]]
    assert find(disk_ids=json.dumps(made[:2])) == made[:2]
    assert find(disk_ids="[]") == []
    assert find(status="In_use", tags={"filter": "yes"}) == []
    assert find(tags={"filter": "yes"}, page_size=2, page_number=2) == made[2:]
    for wanted in ({"portable": True}, {"encrypted": False}, {"multi_attach": "Disabled"}, {"category": "cloud_essd"}):
        assert find(tags={"filter": "yes"}, **wanted) == made
    for nobody in (
        {"portable": False},
        {"encrypted": True},
        {"disk_charge_type": "PrePaid"},
        {"category": "cloud_ssd"},
    ):
        assert find(tags={"filter": "yes"}, **nobody) == []
    ecs.call("modify_disk_attribute", disk_id=made[0], delete_auto_snapshot=False)
    assert find(tags={"filter": "yes"}, delete_auto_snapshot=False) == made[:1]
    filters = models.DescribeDisksRequestFilter
    later = [filters(key="CreationStartTime", value="2990-01-01T00:00Z")]
    assert find(tags={"filter": "yes"}, filter=later) == []
    assert find(tags={"filter": "yes"}, filter=[filters(key="CreationStartTime", value="2020-01-01T00:00Z")]) == made
    with ecs.refused("InvalidParameter", 400):
        find(filter=[filters(key="Colour", value="blue")])
    with ecs.refused("InvalidParameter", 400):
        find(disk_ids=json.dumps([f"d-{n}" for n in range(101)]))
    with ecs.refused("DryRunOperation", 400):
        find(dry_run=True)


def test_attach_and_detach(ecs: Any, server: LocalCloud, host: str) -> None:
    disk_id = ecs.new_disk()
    with server.cloud.engine.hold_clock():
        ecs.call("attach_disk", disk_id=disk_id, instance_id=host)
        assert ecs.disk(disk_id)["Status"] == "Attaching"
    disk = ecs.wait(ecs.disk, disk_id, "In_use")
    assert (disk["InstanceId"], disk["Device"]) == (host, "/dev/xvdb")
    found = ecs.call("describe_disks", instance_id=host, disk_type="data")["Disks"]["Disk"]
    assert [d["DiskId"] for d in found] == [disk_id]
    with ecs.refused("IncorrectDiskStatus", 403):
        ecs.call("attach_disk", disk_id=disk_id, instance_id=host)
    with ecs.refused("IncorrectDiskStatus", 403):
        ecs.call("delete_disk", disk_id=disk_id)
    with server.cloud.engine.hold_clock():
        ecs.call("detach_disk", disk_id=disk_id, instance_id=host)
        assert ecs.disk(disk_id)["Status"] == "Detaching"
    assert ecs.wait(ecs.disk, disk_id, "Available")["InstanceId"] == ""
    with ecs.refused("IncorrectDiskStatus", 403):
        ecs.call("detach_disk", disk_id=disk_id, instance_id=host)


def test_refused_attachments(ecs: Any, host: str) -> None:
    elsewhere = ecs.new_disk(zone_id="cn-local-b")
    with ecs.refused("InvalidDevice.Malformed", 400):
        ecs.call("attach_disk", disk_id=elsewhere, instance_id=host, device="/dev/sdb")
    with ecs.refused("InvalidParameter", 400):
        ecs.call("attach_disk", disk_id=elsewhere, instance_id=host, force=True)
    with ecs.refused("ResourcesNotInSameZone", 403):
        ecs.call("attach_disk", disk_id=elsewhere, instance_id=host)
    with ecs.refused("InvalidDiskId.NotFound", 404):
        ecs.call("attach_disk", disk_id="d-none", instance_id=host)
    with ecs.refused("InvalidInstanceId.NotFound", 404):
        ecs.call("attach_disk", disk_id=elsewhere, instance_id="i-none")
    system = ecs.call("describe_disks", instance_id=host, disk_type="system")["Disks"]["Disk"][0]["DiskId"]
    with ecs.refused("IncorrectInstanceStatus", 403):
        ecs.call("detach_disk", disk_id=system, instance_id=host)


def test_sixteen_data_disks(ecs: Any) -> None:
    disk = models.RunInstancesRequestDataDisk
    disks = [disk(size=1, category="cloud_essd", performance_level="PL0") for _ in range(16)]
    host = ecs.run("host-linux", "exec sleep 600", data_disk=disks)
    ecs.wait(ecs.instance, host, "Running")
    one_more = ecs.new_disk()
    with ecs.refused("InstanceDiskLimitExceeded", 403):
        ecs.call("attach_disk", disk_id=one_more, instance_id=host)
    with ecs.refused("InstanceDiskLimitExceeded", 403):
        ecs.run("host-linux", "true", data_disk=[*disks, disks[0]])
    ecs.release(host)
    assert ecs.call("describe_disks", instance_id=host)["TotalCount"] == 0


def test_a_system_disk_travels_as_data_and_comes_home(ecs: Any, host: str) -> None:
    donor = ecs.run_host()
    ecs.stop(donor)
    system = ecs.call("describe_disks", instance_id=donor)["Disks"]["Disk"][0]["DiskId"]
    ecs.detach(system, donor)
    with ecs.refused("OperationDenied", 403):
        ecs.call("start_instance", instance_id=donor)
    ecs.attach(system, host)
    assert ecs.disk(system)["Type"] == "data"
    ecs.detach(system, host)
    ecs.stop(host)
    bootable = {"disk_id": system, "bootable": True, "password": "Secret-123"}
    with ecs.refused("InvalidInstance.NotOriginInstance", 403):
        ecs.call("attach_disk", instance_id=host, **bootable)
    with ecs.refused("MissingParameter", 400):
        ecs.call("attach_disk", disk_id=system, instance_id=donor, bootable=True)
    ecs.call("attach_disk", instance_id=donor, **bootable)
    assert ecs.wait(ecs.disk, system, "In_use")["Device"] == "/dev/xvda"
    ecs.call("start_instance", instance_id=donor)
    ecs.wait(ecs.instance, donor, "Running")
    ecs.release(donor)
    assert ecs.disk(system)["Status"] == "Available"  # attached without DeleteWithInstance


def test_a_named_device(ecs: Any, host: str) -> None:
    first, second = ecs.new_disk(), ecs.new_disk()
    ecs.call("attach_disk", disk_id=first, instance_id=host, device="/dev/xvdf")
    assert ecs.wait(ecs.disk, first, "In_use")["Device"] == "/dev/xvdf"
    with ecs.refused("InvalidDevice.InUse", 403):
        ecs.call("attach_disk", disk_id=second, instance_id=host, device="/dev/xvdf")


def test_attributes(ecs: Any) -> None:
    first, second = ecs.new_disk(), ecs.new_disk()
    ecs.call("modify_disk_attribute", disk_id=first, disk_name="renamed", description="what it is for")
    disk = ecs.disk(first)
    assert (disk["DiskName"], disk["Description"], disk["DeleteWithInstance"]) == ("renamed", "what it is for", False)
    ecs.call("modify_disk_attribute", disk_ids=[first, second], delete_with_instance=True)
    assert [ecs.disk(d)["DeleteWithInstance"] for d in (first, second)] == [True, True]
    assert ecs.disk(first)["DiskName"] == "renamed"
    with ecs.refused("InvalidParameter.Conflict", 400):
        ecs.call("modify_disk_attribute", disk_id=first, disk_ids=[second], disk_name="both")
    with ecs.refused("MissingParameter", 400):
        ecs.call("modify_disk_attribute", disk_name="none")
    with ecs.refused("InvalidDiskId.NotFound", 404):
        ecs.call("modify_disk_attribute", disk_ids=[first, "d-none"], disk_name="changed")
    assert ecs.disk(first)["DiskName"] == "renamed"
    with ecs.refused("InvalidParameter", 400):
        ecs.call("modify_disk_attribute", disk_id=first, bursting_enabled=True)  # not a cloud_auto disk


def test_a_snapshot_under_way_holds_its_disk(ecs: Any, server: LocalCloud, used_disk: str) -> None:
    with server.cloud.engine.hold_clock():
        ecs.call("create_snapshot", disk_id=used_disk)
        with ecs.refused("DiskCreatingSnapshot", 403):
            ecs.call("delete_disk", disk_id=used_disk)
        with ecs.refused("DiskCreatingSnapshot", 403):
            ecs.call("resize_disk", disk_id=used_disk, new_size=2)
