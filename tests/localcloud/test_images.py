import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_ecs20140526 import models
from alibabacloud_tea_openapi.exceptions import ServerException

from wavelift.localcloud.accounts import ACCOUNT
from wavelift.localcloud.faults.rules import Rule
from wavelift.localcloud.model.context import Options
from wavelift.localcloud.server import LocalCloud


@pytest.fixture(scope="module")
def host(ecs: Any) -> Iterator[str]:
    """One for all tests here: none changes its state."""
    instance_id: str = ecs.run_host()
    yield instance_id
    ecs.release(instance_id)


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
    with ecs.refused("DryRunOperation", 400):
        ecs.call("delete_image", image_id=image_id, dry_run=True)
    ecs.call("delete_image", image_id=image_id)
    assert ecs.image(image_id)["Status"] == "gone"
    ecs.call("delete_image", image_id=image_id)  # unknown by now, and no error
    ecs.call("delete_snapshot", snapshot_id=snapshot)


def test_what_is_kept_of_an_image(ecs: Any, snapshot: str) -> None:
    said = {
        "image_name": "kept",
        "boot_mode": "UEFI",
        "architecture": "i386",
        "platform": "Rocky Linux",
        "image_family": "family-one",
        "image_version": "3",
        "description": "with all it has",
    }
    image = ecs.image(ecs.new_image(snapshot, **said))
    for field, value in said.items():
        assert image["".join(part.capitalize() for part in field.split("_"))] == value
    assert (image["OSType"], image["IsCopied"], image["Usage"], image["Progress"]) == ("linux", False, "none", "100%")


def test_filters(ecs: Any, snapshot: str) -> None:
    linux = ecs.new_image(snapshot, image_name="filter-linux", image_family="filter")
    windows = ecs.new_image(snapshot, image_name="filter-windows", platform="Windows Server 2019", tags={"os": "w"})

    def find(**fields: Any) -> list[str]:
        found = ecs.call("describe_images", **{"image_name": "filter-*", **fields})["Images"]["Image"]
        return [image["ImageId"] for image in found]

    assert find() == [linux, windows] == find(status="ALL") == find(image_owner_alias="self", usage="none")
    assert find(image_id=f"{windows},m-none") == [windows] == find(ostype="windows") == find(tags={"os": None})
    assert find(image_family="filter") == [linux] == find(image_name="filter-l*")
    assert find(snapshot_id=snapshot, architecture="x86_64") == [linux, windows]
    for nobody in ({"image_owner_alias": "marketplace"}, {"is_public": True}, {"status": "Creating,CreateFailed"}):
        assert find(**nobody) == []
    assert find(page_size=1, page_number=2) == [windows]
    filters = models.DescribeImagesRequestFilter
    assert find(filter=[filters(key="CreationEndTime", value="2020-01-01T00:00Z")]) == []
    assert find(filter=[filters(key="CreationEndTime", value="2990-01-01T00:00Z")]) == [linux, windows]
    with ecs.refused("DryRunOperation", 400):
        find(dry_run=True)


def test_a_family_and_its_retired_member(ecs: Any, snapshot: str) -> None:
    def newest() -> str | None:
        image = ecs.call("describe_image_from_family", image_family="retiring").get("Image") or {}
        return image.get("ImageId")

    assert newest() is None
    older = ecs.new_image(snapshot, image_family="retiring")
    newer = ecs.new_image(snapshot, image_family="retiring")
    assert newest() == newer
    ecs.call("modify_image_attribute", image_id=newer, status="Deprecated")
    assert newest() == older
    retired = ecs.call("describe_images", image_id=newer, status="Deprecated")["Images"]["Image"]
    assert [image["Usable"] for image in retired] == [True]
    with ecs.refused("IncorrectImageStatus", 400):
        ecs.call("copy_image", image_id=newer)
    ecs.call("modify_image_attribute", image_id=newer, status="Available")
    assert newest() == newer


def test_attributes(ecs: Any, snapshot: str) -> None:
    image_id = ecs.new_image(snapshot, image_name="before")
    other = ecs.new_image(snapshot, image_name="other-name")
    ecs.call("modify_image_attribute", image_id=image_id, image_name="after", boot_mode="UEFI-Preferred")
    ecs.call("modify_image_attribute", image_id=image_id, description="what it is for", license_type="BYOL")
    image = ecs.image(image_id)
    kept = (image["ImageName"], image["BootMode"], image["Description"], image["LicenseType"])
    assert kept == ("after", "UEFI-Preferred", "what it is for", "BYOL")
    with ecs.refused("InvalidImageName.Duplicated", 400):
        ecs.call("modify_image_attribute", image_id=other, image_name="after")
    with ecs.refused("DryRunOperation", 400):
        ecs.call("modify_image_attribute", image_id=other, image_name="unused", dry_run=True)
    with ecs.refused("OperationDenied", 403):
        ecs.call("modify_image_attribute", image_id="host-linux", image_name="mine")
    with ecs.refused("InvalidImageId.NotFound", 404):
        ecs.call("modify_image_attribute", image_id="m-none", image_name="mine")


def test_sharing(ecs: Any, snapshot: str) -> None:
    image_id = ecs.new_image(snapshot)
    accounts = [f"{n:016}" for n in range(101, 112)]

    def shared(**fields: Any) -> list[str]:
        answer = ecs.call("describe_image_share_permission", image_id=image_id, **fields)
        return [account["AliyunId"] for account in answer["Accounts"]["Account"]]

    ecs.call("modify_image_share_permission", image_id=image_id, add_account=accounts)
    assert shared() == accounts[:10]  # ten at a time
    assert shared(page_size=4, page_number=3) == accounts[8:10]
    ecs.call("modify_image_share_permission", image_id=image_id, remove_account=accounts[:9])
    assert shared() == accounts[9:10]
    with ecs.refused("OperationDenied", 403):
        ecs.call("modify_image_attribute", image_id=image_id, status="Deprecated")
    with ecs.refused("InvalidAccount.NotFound", 404):
        ecs.call("modify_image_share_permission", image_id=image_id, add_account=["somebody"])
    with ecs.refused("InvalidAccount.Forbbiden", 404):
        ecs.call("modify_image_share_permission", image_id=image_id, add_account=[ACCOUNT])
    with ecs.refused("InvalidParameter", 400):
        ecs.call("modify_image_share_permission", image_id=image_id, is_public=True)
    with ecs.refused("DryRunOperation", 400):
        ecs.call("modify_image_share_permission", image_id=image_id, add_account=accounts[:1], dry_run=True)


def test_a_copy(ecs: Any, server: LocalCloud, state: Path, snapshot: str) -> None:
    source = ecs.new_image(snapshot, snapshot, boot_mode="UEFI", image_name="original")
    order = {"image_id": source, "destination_region_id": "cn-local", "destination_image_name": "the-copy"}
    with ecs.refused("DryRunOperation", 400):
        ecs.call("copy_image", dry_run=True, **order)
    with server.cloud.engine.hold_clock():
        copy = ecs.call("copy_image", **order)["ImageId"]
        with ecs.refused("ImageIsCopying", 403):
            ecs.call("delete_image", image_id=copy)
        with ecs.refused("ImageIsCopying", 403):
            ecs.call("delete_image", image_id=source)
    image = ecs.wait(ecs.image, copy, "Available")
    assert (image["ImageName"], image["BootMode"], image["IsCopied"]) == ("the-copy", "UEFI", True)
    copies = [device["SnapshotId"] for device in image["DiskDeviceMappings"]["DiskDeviceMapping"]]
    assert len(set(copies)) == 2 and snapshot not in copies
    ecs.call("delete_image", image_id=source)
    ecs.call("delete_snapshot", snapshot_id=snapshot)
    for made in copies:
        assert ecs.snapshot(made)["Status"] == "accomplished"
        with (state / "snapshots" / f"{made}.raw").open("rb") as file:
            assert file.read(5) == b"first"
    with ecs.refused("InvalidRegionId.NotFound", 404):
        ecs.call("copy_image", image_id=copy, destination_region_id="cn-elsewhere")
    with ecs.refused("IncorrectImageStatus", 400):
        ecs.call("cancel_copy_image", image_id=copy)


def test_a_copy_given_up(ecs: Any, server: LocalCloud, state: Path, snapshot: str) -> None:
    source = ecs.new_image(snapshot)
    before = set((state / "snapshots").iterdir())
    with server.cloud.engine.hold_clock():
        copy = ecs.call("copy_image", image_id=source)["ImageId"]
        made = ecs.image(copy)["DiskDeviceMappings"]["DiskDeviceMapping"][0]["SnapshotId"]
        ecs.call("cancel_copy_image", image_id=copy)
    assert ecs.image(copy)["Status"] == "gone" and ecs.snapshot(made)["Status"] == "gone"
    deadline = time.monotonic() + 10
    while set((state / "snapshots").iterdir()) != before:  # the work that was under way clears up behind itself
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_empty_data_disk(ecs: Any, state: Path, snapshot: str) -> None:
    mappings = [mapping(snapshot, disk_type="system"), models.CreateImageRequestDiskDeviceMapping(disk_type="data")]
    image_id = ecs.call("create_image", disk_device_mapping=mappings)["ImageId"]
    ecs.wait(ecs.image, image_id, "Available")
    instance = ecs.run(image_id)
    ecs.wait(ecs.instance, instance, "Running")
    disk = ecs.call("describe_disks", instance_id=instance, disk_type="data")["Disks"]["Disk"][0]
    assert (disk["Size"], disk["Device"], disk["SourceSnapshotId"]) == (20, "/dev/xvdb", "")
    with (state / "disks" / f"{disk['DiskId']}.raw").open("rb") as file:
        assert file.read(5) == bytes(5)
    assert ecs.image(image_id)["Usage"] == "instance"
    ecs.release(instance)


def test_client_token(ecs: Any, snapshot: str) -> None:
    def make(name: str) -> str:
        fields = {"image_name": name, "client_token": "image-token"}
        return str(ecs.call("create_image", disk_device_mapping=[mapping(snapshot, disk_type="system")], **fields))

    ids = [make("token")[:30], make("token")[:30]]
    assert ids[0] == ids[1]
    with ecs.refused("IdempotenceParamNotMatch", 400):
        make("other")


@pytest.fixture
def big_snapshot(ecs: Any, used_disk: str, snapshot: str) -> str:
    ecs.call("resize_disk", disk_id=used_disk, new_size=2)
    return str(ecs.new_snapshot(used_disk))


def test_refused_images(ecs: Any, snapshot: str, big_snapshot: str) -> None:
    system = mapping(snapshot, device="/dev/xvda", disk_type="system")

    def make(*mappings: Any, **fields: Any) -> None:
        ecs.call("create_image", disk_device_mapping=list(mappings), **fields)

    with ecs.refused("InvalidParameter", 400):
        make(mapping(snapshot, disk_type="data"))  # no system disk
    with ecs.refused("InvalidParameter", 400):
        make(system, mapping(snapshot, device="/dev/xvda", disk_type="data"))
    with ecs.refused("InvalidParameter", 400):
        make(mapping(snapshot, device="/dev/sda", disk_type="system"))
    with ecs.refused("InvalidParameter", 400):
        make(system, *[models.CreateImageRequestDiskDeviceMapping(disk_type="data", size=20)] * 26)
    for field, value in (("boot_mode", "Coreboot"), ("platform", "Minix"), ("architecture", "arm64")):
        code = "".join(part.capitalize() for part in field.split("_"))
        with ecs.refused(f"Invalid{code}.Malformed", 400):
            make(system, **{field: value})
    with ecs.refused("InvalidImageName.Malformed", 400):
        make(system, image_name="aliyun-one")
    with ecs.refused("InvalidImageFamily.Malformed", 400):
        make(system, image_family="acs:one")
    with ecs.refused("InvalidDiskSize.TooSmall", 403):
        ecs.call("create_image", disk_device_mapping=[mapping(big_snapshot, disk_type="system", size=1)])
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


def test_the_same_request_again_waits_for_the_first(ecs: Any, server: LocalCloud, snapshot: str) -> None:
    order = models.CreateInstanceRequestSystemDisk(size=1, category="cloud_essd", performance_level="PL0")
    place = {"v_switch_id": "vsw-local-a", "security_group_id": "sg-local-default", "system_disk": order}
    machine = ecs.call("create_instance", image_id=ecs.new_image(snapshot), instance_type="ecs.c7.large", **place)
    instance = str(machine["InstanceId"])
    ecs.wait(ecs.instance, instance, "Stopped")
    (disk,) = ecs.call("describe_disks", instance_id=instance)["Disks"]["Disk"]
    locks = server.cloud.snapshots._context.locks
    server.faults.add([Rule.model_validate({"fault": {"kind": "disk-full", "of": "snapshot"}, "times": 1})])

    def make() -> str:
        return str(ecs.call("create_image", instance_id=instance, client_token="again")["ImageId"])

    def users() -> int:
        return locks._locks.get(f"disk {disk['DiskId']}", (None, 0))[1]

    try:
        with ThreadPoolExecutor() as pool:
            with locks.hold(f"instance {instance}"):
                first = pool.submit(make)
                while not ecs.call("describe_snapshots", disk_id=disk["DiskId"])["TotalCount"]:
                    assert not first.done()
                second = pool.submit(make)
                while users() < 2 and not second.done():
                    time.sleep(0.01)
            with pytest.raises(ServerException):
                first.result(10)
            ecs.wait(ecs.image, second.result(10), "Available")
    finally:
        server.faults.reset()
    ecs.release(instance)


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
