from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_ecs20140526 import models

from wavelift.localcloud.model.context import Options
from wavelift.localcloud.server import LocalCloud


@pytest.fixture
def snapshot(ecs: Any, used_disk: str) -> str:
    return str(ecs.new_snapshot(used_disk))


def mapping(snapshot_id: str, **fields: Any) -> Any:
    return models.CreateImageRequestDiskDeviceMapping(snapshot_id=snapshot_id, **fields)


def test_life_of_an_image(ecs: Any, server: LocalCloud, snapshot: str) -> None:
    mappings = [
        mapping(snapshot, device="/dev/xvda", disk_type="system"),
        mapping(snapshot, device="/dev/xvdc", disk_type="data", size=3),
    ]
    order = {"image_name": "one", "disk_device_mapping": mappings, "tags": {"wave": "9"}}
    with server.cloud.engine.hold_clock():
        image_id = ecs.call("create_image", **order)["ImageId"]
        assert ecs.call("describe_images", image_id=image_id)["TotalCount"] == 0  # only Available ones are shown
        assert ecs.image(image_id)["Status"] == "Creating"
    assert image_id.startswith("m-") and len(image_id) == 22
    image = ecs.wait(ecs.image, image_id, "Available")
    assert (image["ImageName"], image["ImageOwnerAlias"], image["Size"]) == ("one", "self", 1)
    devices = image["DiskDeviceMappings"]["DiskDeviceMapping"]
    assert [(d["Device"], d["Type"], d["Size"]) for d in devices] == [
        ("/dev/xvda", "system", "1"),
        ("/dev/xvdc", "data", "3"),
    ]
    with ecs.refused("SnapshotCreatedImage", 403):
        ecs.call("delete_snapshot", snapshot_id=snapshot, force=True)
    with ecs.refused("InvalidImageName.Duplicated", 400):
        ecs.call("create_image", image_name="one", disk_device_mapping=mappings)
    for fields in ({"tags": {"wave": "9"}}, {"image_name": "one"}, {"image_id": image_id}):
        found = ecs.call("describe_images", image_owner_alias="self", **fields)["Images"]["Image"]
        assert [i["ImageId"] for i in found] == [image_id]
    ecs.call("delete_image", image_id=image_id)
    assert ecs.image(image_id)["Status"] == "gone"
    ecs.call("delete_snapshot", snapshot_id=snapshot)


def test_client_token(ecs: Any, snapshot: str) -> None:
    def make(name: str) -> str:
        fields = {"image_name": name, "client_token": "image-token"}
        return str(ecs.call("create_image", disk_device_mapping=[mapping(snapshot, disk_type="system")], **fields))

    ids = [make("token")[:30], make("token")[:30]]
    assert ids[0] == ids[1]
    with ecs.refused("IdempotenceParamNotMatch", 400):
        make("other")


def test_refused_images(ecs: Any, snapshot: str) -> None:
    system = mapping(snapshot, device="/dev/xvda", disk_type="system")

    def make(*mappings: Any, **fields: Any) -> None:
        ecs.call("create_image", disk_device_mapping=list(mappings), **fields)

    with ecs.refused("InvalidParameter", 400):
        make(mapping(snapshot, disk_type="data"))  # no system disk
    with ecs.refused("InvalidParameter", 400):
        make(system, mapping(snapshot, device="/dev/xvda", disk_type="data"))
    with ecs.refused("InvalidParameter", 400):
        make(mapping(snapshot, device="/dev/sda", disk_type="system"))
    with ecs.refused("InvalidParameter.BootMode", 400):
        make(system, boot_mode="UEFI")
    with ecs.refused("InvalidSnapshotId.NotFound", 404):
        make(mapping("s-none", disk_type="system"))
    with ecs.refused("MissingParameter", 400):
        make()
    with ecs.refused("OperationDenied", 403):
        ecs.call("create_image", snapshot_id=snapshot)  # of a data disk
    with ecs.refused("DryRunOperation", 400):
        make(system, dry_run=True)


def test_a_snapshot_in_the_making_is_not_ready(ecs: Any, server: LocalCloud, used_disk: str) -> None:
    with server.cloud.engine.hold_clock():
        young = ecs.call("create_snapshot", disk_id=used_disk)["SnapshotId"]
        with ecs.refused("InvalidSnapshotId.NotReady", 403):
            ecs.call("create_image", disk_device_mapping=[mapping(young, disk_type="system")])


def test_an_image_with_data_disks_orders_them(ecs: Any, snapshot: str, state: Path) -> None:
    image_id = ecs.new_image(snapshot, snapshot)
    instance = ecs.run(image_id, data_disk=[models.RunInstancesRequestDataDisk(size=20)])
    ecs.wait(ecs.instance, instance, "Running")
    disks = ecs.call("describe_disks", instance_id=instance)["Disks"]["Disk"]
    assert sorted((d["Device"], d["Type"], d["Size"]) for d in disks) == [
        ("/dev/xvda", "system", 1),
        ("/dev/xvdb", "data", 1),
        ("/dev/xvdc", "data", 20),
    ]
    for disk in disks[:2]:
        with (state / "disks" / f"{disk['DiskId']}.raw").open("rb") as file:
            assert file.read(5) == b"first"
    with ecs.refused("ImageUsingByInstance", 403):
        ecs.call("delete_image", image_id=image_id)
    ecs.call("delete_image", image_id=image_id, force=True)
    made = ecs.call("create_image", instance_id=instance)["ImageId"]
    image = ecs.wait(ecs.image, made, "Available")
    assert len(image["DiskDeviceMappings"]["DiskDeviceMapping"]) == 3
    ecs.release(instance)
    assert ecs.call("describe_disks", instance_id=instance)["TotalCount"] == 0


def test_a_system_disk_is_not_smaller_than_the_image(ecs: Any, host: str) -> None:
    disk_id = ecs.new_disk(3)
    ecs.attach(disk_id, host)
    image_id = ecs.new_image(ecs.new_snapshot(disk_id))
    with ecs.refused("InvalidSystemDiskSize.LessThanImageSize", 400):
        ecs.run(image_id)
    with ecs.refused("DryRunOperation", 400):
        ecs.run(image_id, system_disk=None, dry_run=True)  # 40 GiB by default


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, ecs: Any) -> Iterator[Any]:
    """An account without the right to make images from data disks' snapshots."""
    options = Options(host_instances=True, data_snapshot_images=False)
    with LocalCloud(tmp_path_factory.mktemp("strict"), {"K": "S"}, options) as server:
        yield type(ecs)(server.endpoint, "K", "S")


def test_not_in_the_white_list(strict: Any) -> None:
    host = strict.run_host()
    disk_id = strict.new_disk()
    strict.attach(disk_id, host)
    data = strict.new_snapshot(disk_id)
    with strict.refused("UserNotInTheWhiteList", 403):
        strict.new_image(data)
    system = strict.call("describe_disks", instance_id=host, disk_type="system")["Disks"]["Disk"][0]["DiskId"]
    strict.new_image(strict.new_snapshot(system), data)
