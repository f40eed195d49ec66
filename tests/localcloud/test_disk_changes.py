from pathlib import Path
from typing import Any

import pytest

from wavelift.localcloud.server import LocalCloud

GIB = 1024**3


def file_of(state: Path, disk_id: str) -> Path:
    return state / "disks" / f"{disk_id}.raw"


def first(state: Path, disk_id: str) -> bytes:
    with file_of(state, disk_id).open("rb") as file:
        return file.read(5)


def overwrite(state: Path, disk_id: str) -> None:
    with file_of(state, disk_id).open("r+b") as file:
        file.write(b"LATER")


@pytest.fixture
def stopped(ecs: Any, host: str) -> str:
    ecs.stop(host)
    return host


def test_a_disk_grows(ecs: Any, state: Path, used_disk: str) -> None:
    for _ in range(2):  # the token makes it one request
        ecs.call("resize_disk", disk_id=used_disk, new_size=3, client_token="grow")
    assert ecs.disk(used_disk)["Size"] == 3
    assert file_of(state, used_disk).stat().st_size == 3 * GIB and first(state, used_disk) == b"first"
    with ecs.refused("IdempotentParameterMismatch", 400):
        ecs.call("resize_disk", disk_id=used_disk, new_size=4, client_token="grow")


def test_a_clone_of_the_snapshot_of_a_grown_disk(ecs: Any, state: Path, used_disk: str) -> None:
    small = ecs.new_snapshot(used_disk)
    ecs.call("resize_disk", disk_id=used_disk, new_size=2)
    large = ecs.new_snapshot(used_disk)
    assert [ecs.snapshot(s)["SourceDiskSize"] for s in (small, large)] == ["1", "2"]
    assert file_of(state, ecs.new_disk(2, snapshot_id=small)).stat().st_size == 2 * GIB
    with ecs.refused("InvalidDiskSize.TooSmall", 403):
        ecs.new_disk(1, snapshot_id=large)


@pytest.mark.parametrize("size", [1, 2])
def test_a_disk_only_grows(ecs: Any, size: int) -> None:
    disk_id = ecs.new_disk(2)
    with ecs.refused("InvalidDiskSize.TooSmall", 403):
        ecs.call("resize_disk", disk_id=disk_id, new_size=size)


def test_refused_sizes(ecs: Any, host: str) -> None:
    disk_id = ecs.new_disk(5, disk_category="cloud", performance_level=None)
    with ecs.refused("InvalidDiskSize.TooLarge", 403):
        ecs.call("resize_disk", disk_id=disk_id, new_size=2001)
    with ecs.refused("InvalidParam.Type", 400):
        ecs.call("resize_disk", disk_id=disk_id, new_size=6, type="sideways")
    with ecs.refused("IncorrectDiskStatus", 403):
        ecs.call("resize_disk", disk_id=disk_id, new_size=6, type="online")  # attached to nothing
    with ecs.refused("InvalidDiskId.NotFound", 404):
        ecs.call("resize_disk", disk_id="d-none", new_size=6)
    ecs.attach(disk_id, host)
    with ecs.refused("InvalidDiskCategory.NotSupported", 403):
        ecs.call("resize_disk", disk_id=disk_id, new_size=6, type="online")
    system = ecs.call("describe_disks", instance_id=host, disk_type="system")["Disks"]["Disk"][0]["DiskId"]
    with ecs.refused("InvalidDiskSize.TooLarge", 403):
        ecs.call("resize_disk", disk_id=system, new_size=2049)


def test_online_needs_a_running_instance(ecs: Any, state: Path, host: str) -> None:
    disk_id = ecs.new_disk()
    ecs.attach(disk_id, host)
    ecs.call("resize_disk", disk_id=disk_id, new_size=2, type="online")
    ecs.stop(host)
    with ecs.refused("IncorrectInstanceStatus", 403):
        ecs.call("resize_disk", disk_id=disk_id, new_size=3, type="online")
    ecs.call("resize_disk", disk_id=disk_id, new_size=3)
    assert file_of(state, disk_id).stat().st_size == 3 * GIB


def test_a_disk_begins_again(ecs: Any, server: LocalCloud, state: Path, used_disk: str, stopped: str) -> None:
    snapshot = ecs.new_snapshot(used_disk)
    empty, clone = ecs.new_disk(), ecs.new_disk(2, snapshot_id=snapshot)
    for disk_id in (empty, clone):
        ecs.attach(disk_id, stopped)
        overwrite(state, disk_id)
    with server.cloud.engine.hold_clock():
        ecs.call("re_init_disk", disk_id=clone)
        assert ecs.disk(clone)["Status"] == "ReIniting"
        with ecs.refused("IncorrectDiskStatus", 403):
            ecs.call("start_instance", instance_id=stopped)
        with ecs.refused("SnapshotCreatedDisk", 403):
            ecs.call("delete_snapshot", snapshot_id=snapshot, force=True)
    ecs.wait(ecs.disk, clone, "In_use")
    assert first(state, clone) == b"first" and file_of(state, clone).stat().st_size == 2 * GIB
    ecs.call("re_init_disk", disk_id=empty, auto_start_instance=True)
    ecs.wait(ecs.instance, stopped, "Running")
    assert first(state, empty) == bytes(5)
    with ecs.refused("IncorrectInstanceStatus", 403):
        ecs.call("re_init_disk", disk_id=empty)


def test_what_cannot_begin_again(ecs: Any, used_disk: str, stopped: str) -> None:
    with ecs.refused("IncorrectDiskStatus", 403):
        ecs.call("re_init_disk", disk_id=used_disk)  # attached to nothing
    snapshot = ecs.new_snapshot(used_disk)
    clone = ecs.new_disk(snapshot_id=snapshot)
    ecs.attach(clone, stopped)
    ecs.call("delete_snapshot", snapshot_id=snapshot, force=True)
    with ecs.refused("InvalidSourceSnapshot", 403):
        ecs.call("re_init_disk", disk_id=clone)
    image = ecs.new_image(ecs.new_snapshot(used_disk))
    instance = ecs.run(image)
    ecs.wait(ecs.instance, instance, "Running")
    ecs.stop(instance)
    system = ecs.call("describe_disks", instance_id=instance)["Disks"]["Disk"][0]["DiskId"]
    ecs.call("delete_image", image_id=image, force=True)
    with ecs.refused("InvalidDiskId.OperationNotSupported", 404):
        ecs.call("re_init_disk", disk_id=system)
    ecs.release(instance)


def test_a_disk_goes_back_to_its_snapshot(ecs: Any, state: Path, used_disk: str) -> None:
    snapshot = ecs.new_snapshot(used_disk)
    overwrite(state, used_disk)
    with ecs.refused("DryRunOperation", 400):
        ecs.call("reset_disk", disk_id=used_disk, snapshot_id=snapshot, dry_run=True)
    ecs.call("reset_disk", disk_id=used_disk, snapshot_id=snapshot)
    ecs.wait(ecs.disk, used_disk, "Available")
    assert first(state, used_disk) == b"first"
    with ecs.refused("InvalidParameter.Mismatch", 403):
        ecs.call("reset_disk", disk_id=ecs.new_disk(), snapshot_id=snapshot)


def test_no_rollback_under_a_running_instance(ecs: Any, host: str) -> None:
    disk_id = ecs.new_disk()
    ecs.attach(disk_id, host)
    snapshot = ecs.new_snapshot(disk_id)
    with ecs.refused("IncorrectInstanceStatus", 403):
        ecs.call("reset_disk", disk_id=disk_id, snapshot_id=snapshot)


def test_another_class_of_disk(ecs: Any) -> None:
    disk_id = ecs.new_disk(500, disk_category="cloud_ssd", performance_level=None)
    ecs.call("modify_disk_spec", disk_id=disk_id, disk_category="cloud_essd", performance_level="PL2")
    disk = ecs.disk(disk_id)
    assert (disk["Category"], disk["PerformanceLevel"]) == ("cloud_essd", "PL2")
    with ecs.refused("InvalidDiskSize.NotSupported", 403):
        ecs.call("modify_disk_spec", disk_id=disk_id, performance_level="PL3")
    with ecs.refused("OperationDenied", 403):
        ecs.call("modify_disk_spec", disk_id=disk_id, performance_level="PL0")
    with ecs.refused("DryRunOperation", 400):
        ecs.call("modify_disk_spec", disk_id=disk_id, performance_level="PL1", dry_run=True)
    ecs.call("modify_disk_spec", disk_id=disk_id, disk_category="cloud_auto", provisioned_iops=1000)
    assert (ecs.disk(disk_id)["ProvisionedIops"], ecs.disk(disk_id)["PerformanceLevel"]) == (1000, "")
    with ecs.refused("InvalidParameter", 400):
        ecs.call("modify_disk_spec", disk_id=disk_id, performance_level="PL1")
