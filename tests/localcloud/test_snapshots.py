import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_ecs20140526 import models

from wavelift.localcloud.entities import Disk
from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.model.context import find
from wavelift.localcloud.model.snapshots import SnapshotOrder

ZONE = "cn-local-a"


@pytest.fixture(scope="module")
def host(ecs: Any) -> Iterator[str]:
    """One for all tests here: none changes its state."""
    instance_id: str = ecs.run_host()
    yield instance_id
    ecs.release(instance_id)


def content(path: Path) -> tuple[bytes, bytes, int]:
    with path.open("rb") as file:
        first = file.read(5)
        file.seek(1024**3 - 512)
        return first, file.read(4), path.stat().st_size


def test_a_snapshot_and_its_clone(ecs: Any, server: Any, state: Path, used_disk: str) -> None:
    order = {"disk_id": used_disk, "snapshot_name": "one", "tags": {"generation": "1"}}
    with server.cloud.engine.hold_clock():
        snapshot_id = ecs.call("create_snapshot", **order)["SnapshotId"]
        assert snapshot_id.startswith("s-") and len(snapshot_id) == 22
        with (state / "disks" / f"{used_disk}.raw").open("r+b") as file:
            file.write(b"LATER")
        snapshot = ecs.snapshot(snapshot_id)
        assert snapshot["Status"] == "progressing"
        assert 0 <= int(snapshot["Progress"].removesuffix("%")) < 100
        assert snapshot["RemainTime"] >= 1 and not snapshot["Available"]
        with ecs.refused("InvalidSnapshotId.NotReady", 403):
            ecs.call("create_disk", zone_id=ZONE, size=5, snapshot_id=snapshot_id)
    snapshot = ecs.wait(ecs.snapshot, snapshot_id, "accomplished")
    assert (snapshot["Progress"], snapshot["SourceDiskId"], snapshot["SourceDiskSize"]) == ("100%", used_disk, "1")
    assert (snapshot["RemainTime"], snapshot["Available"], snapshot["SourceDiskType"]) == (0, True, "data")
    file = state / "snapshots" / f"{snapshot_id}.raw"
    assert content(file) == (b"first", b"last", 1024**3)
    assert file.stat().st_blocks * 512 < 1024 * 1024  # sparse
    clone = ecs.new_disk(2, snapshot_id=snapshot_id)
    assert content(state / "disks" / f"{clone}.raw") == (b"first", b"last", 2 * 1024**3)
    assert ecs.snapshot(snapshot_id)["Usage"] == "disk"


def test_never_attached(ecs: Any) -> None:
    with ecs.refused("IncorrectDiskStatus.NeverAttached", 403):
        ecs.call("create_snapshot", disk_id=ecs.new_disk())
    with ecs.refused("InvalidDiskId.NotFound", 404):
        ecs.call("create_snapshot", disk_id="d-none")


def test_an_instance_on_its_way_is_left_alone(ecs: Any, server: Any) -> None:
    host, disk_id = ecs.run_host(), ecs.new_disk()
    ecs.attach(disk_id, host)
    with server.cloud.engine.hold_clock():
        ecs.call("stop_instance", instance_id=host, force_stop=True)
        with ecs.refused("IncorrectInstanceStatus", 403):
            ecs.call("create_snapshot", disk_id=disk_id)
    ecs.wait(ecs.instance, host, "Stopped")
    ecs.new_snapshot(disk_id)
    ecs.release(host)


def test_client_token(ecs: Any, used_disk: str) -> None:
    def make(name: str) -> str:
        fields = {"disk_id": used_disk, "snapshot_name": name, "client_token": "snapshot-token"}
        return str(ecs.call("create_snapshot", **fields)["SnapshotId"])

    assert make("one") == make("one")
    with ecs.refused("IdempotentParameterMismatch", 403):
        make("two")


def test_filters(ecs: Any, used_disk: str) -> None:
    made = ecs.new_snapshot(used_disk, tags={"kind": "filter"})

    def find(**fields: Any) -> list[str]:
        return [s["SnapshotId"] for s in ecs.call("describe_snapshots", **fields)["Snapshots"]["Snapshot"]]

    assert find(disk_id=used_disk) == [made]
    assert find(tags={"kind": "filter"}) == [made]
    assert find(snapshot_ids=json.dumps([made]), status="accomplished") == [made]
    assert find(disk_id=used_disk, status="progressing") == []
    for same in ({"usage": "none"}, {"snapshot_type": "user"}, {"source_disk_type": "Data"}, {"category": "Standard"}):
        assert find(disk_id=used_disk, **same) == [made]
    for other in ({"usage": "image"}, {"snapshot_type": "auto"}, {"source_disk_type": "system"}, {"encrypted": True}):
        assert find(disk_id=used_disk, **other) == []
    link = ecs.snapshot(made)["SnapshotLinkId"]
    again = ecs.new_snapshot(used_disk)
    assert find(snapshot_link_id=link) == [made, again]
    later = models.DescribeSnapshotsRequestFilter(key="CreationStartTime", value="2990-01-01T00:00Z")
    assert find(disk_id=used_disk, filter=[later]) == []
    with ecs.refused("DryRunOperation", 400):
        find(dry_run=True)


def test_deletion(ecs: Any, state: Path, used_disk: str) -> None:
    snapshot_id = ecs.new_snapshot(used_disk)
    clone = ecs.new_disk(snapshot_id=snapshot_id)
    with ecs.refused("SnapshotCreatedDisk", 403):
        ecs.call("delete_snapshot", snapshot_id=snapshot_id)
    ecs.call("delete_snapshot", snapshot_id=snapshot_id, force=True)
    assert ecs.snapshot(snapshot_id)["Status"] == "gone"
    ecs.call("delete_snapshot", snapshot_id=snapshot_id)  # unknown by now, and no error
    assert not (state / "snapshots" / f"{snapshot_id}.raw").exists()
    assert content(state / "disks" / f"{clone}.raw")[:2] == (b"first", b"last")


def test_snapshots_outlive_their_disk(ecs: Any, used_disk: str) -> None:
    snapshot_id = ecs.new_snapshot(used_disk)
    ecs.call("delete_disk", disk_id=used_disk)
    assert ecs.snapshot(snapshot_id)["Status"] == "accomplished"


def test_too_small_for_the_snapshot(ecs: Any, host: str) -> None:
    disk_id = ecs.new_disk(3)
    ecs.attach(disk_id, host)
    snapshot_id = ecs.new_snapshot(disk_id)
    with ecs.refused("InvalidDiskSize.TooSmall", 403):
        ecs.new_disk(2, snapshot_id=snapshot_id)


def test_one_under_way_is_given_up(ecs: Any, server: Any, state: Path, used_disk: str) -> None:
    with server.cloud.engine.hold_clock():
        snapshot_id = ecs.call("create_snapshot", disk_id=used_disk)["SnapshotId"]
        ecs.call("delete_snapshot", snapshot_id=snapshot_id)
    assert ecs.snapshot(snapshot_id)["Status"] == "gone"
    assert not (state / "snapshots" / f"{snapshot_id}.raw").exists()


def test_names_and_how_long_it_is_kept(ecs: Any, used_disk: str) -> None:
    with ecs.refused("InvalidSnapshotName.Malformed", 400):
        ecs.call("create_snapshot", disk_id=used_disk, snapshot_name="auto-one")  # the name of an automatic one
    with ecs.refused("InvalidParameter", 400):
        ecs.call("create_snapshot", disk_id=used_disk, retention_days=65537)
    made = ecs.new_snapshot(used_disk, retention_days=7, category="Standard", instant_access=True)
    assert ecs.snapshot(made)["RetentionDays"] == 7
    ecs.call("modify_snapshot_attribute", snapshot_id=made, snapshot_name="kept", retention_days=30)
    ecs.call("modify_snapshot_attribute", snapshot_id=made, description="for long")
    snapshot = ecs.snapshot(made)
    assert (snapshot["SnapshotName"], snapshot["RetentionDays"], snapshot["Description"]) == ("kept", 30, "for long")
    with ecs.refused("InvalidParameter", 400):
        ecs.call("modify_snapshot_attribute", snapshot_id=made, retention_days=29)
    with ecs.refused("InvalidSnapshotId.NotFound", 404):
        ecs.call("modify_snapshot_attribute", snapshot_id="s-none", snapshot_name="none")


def copy_order(source: str, **fields: Any) -> dict[str, Any]:
    names = {"destination_snapshot_name": "copy", "destination_snapshot_description": "a copy"}
    return {"snapshot_id": source, "destination_region_id": "cn-local", **names, **fields}


def test_a_copy(ecs: Any, state: Path, used_disk: str) -> None:
    source = ecs.new_snapshot(used_disk)
    copy = ecs.call("copy_snapshot", tags={"copy": "yes"}, client_token="copy", **copy_order(source))["SnapshotId"]
    found = ecs.wait(ecs.snapshot, copy, "accomplished")
    assert (found["SourceSnapshotId"], found["SnapshotName"]) == (source, "copy")
    assert (
        ecs.call("copy_snapshot", tags={"copy": "yes"}, client_token="copy", **copy_order(source))["SnapshotId"] == copy
    )
    ecs.call("delete_snapshot", snapshot_id=source)
    assert content(state / "snapshots" / f"{copy}.raw") == (b"first", b"last", 1024**3)
    with ecs.refused("InvalidParameter.Mismatch", 403):
        ecs.call("reset_disk", disk_id=used_disk, snapshot_id=copy)
    with ecs.refused("InvalidRegionId.NotFound", 404):
        ecs.call("copy_snapshot", **copy_order(copy, destination_region_id="cn-elsewhere"))


def test_what_is_copied_stays_meanwhile(ecs: Any, server: Any, state: Path, used_disk: str) -> None:
    source = ecs.new_snapshot(used_disk)
    with server.cloud.engine.hold_clock():
        copy = ecs.call("copy_snapshot", **copy_order(source))["SnapshotId"]
        with ecs.refused("OperationDenied", 403):
            ecs.call("delete_snapshot", snapshot_id=source)
        with ecs.refused("InvalidSnapshotId.NotReady", 403):
            ecs.call("copy_snapshot", **copy_order(copy))
        ecs.call("delete_snapshot", snapshot_id=copy)
    ecs.call("delete_snapshot", snapshot_id=source)
    assert not any((state / "snapshots" / f"{s}.raw").exists() for s in (source, copy))


# Writes the same growing number at the start and at the end of its disk, for ever.
COUNTER = """#!/usr/bin/env python3
import os, time, pathlib
folder = pathlib.Path(os.environ["DEVICE_DIR"])
while not list(folder.iterdir()):
    time.sleep(0.01)
with next(folder.iterdir()).open("r+b", buffering=0) as disk:
    print("counting", flush=True)
    number = 0
    while True:
        number += 1
        for place in (0, 512 * 1024**2):
            os.pwrite(disk.fileno(), number.to_bytes(8, "big"), place)
"""


def test_a_point_in_time_while_a_host_instance_writes(ecs: Any, state: Path) -> None:
    host = ecs.run_host(COUNTER)
    disk_id = ecs.new_disk()
    path = state / "disks" / f"{disk_id}.raw"
    with path.open("r+b") as file:  # something to copy between the two places
        file.seek(1024**2)
        file.write(bytes(range(1, 256)) * 1024 * 256)
    ecs.attach(disk_id, host)
    ecs.wait_console(host, "counting")
    snapshots = [ecs.call("create_snapshot", disk_id=disk_id)["SnapshotId"] for _ in range(3)]
    seen = []
    for snapshot_id in snapshots:
        with (state / "snapshots" / f"{snapshot_id}.raw").open("rb") as file:
            first = int.from_bytes(file.read(8), "big")
            file.seek(512 * 1024**2)
            second = int.from_bytes(file.read(8), "big")
        assert 0 <= first - second <= 1
        seen.append(first)
    assert seen == sorted(set(seen))  # it went on between them
    ecs.release(host)


def test_a_disk_stays_while_it_is_copied(ecs: Any, server: Any, used_disk: str) -> None:
    image = ecs.new_image(ecs.new_snapshot(used_disk))
    order = models.CreateInstanceRequestSystemDisk(size=1, category="cloud_essd", performance_level="PL0")
    place = {"v_switch_id": "vsw-local-a", "security_group_id": "sg-local-default", "system_disk": order}
    machine = ecs.call("create_instance", image_id=image, instance_type="ecs.c7.large", **place)["InstanceId"]
    ecs.wait(ecs.instance, machine, "Stopped")
    (disk,) = ecs.call("describe_disks", instance_id=machine)["Disks"]["Disk"]
    replies: list[str] = []
    with server.cloud.snapshots._context.locks.hold(f"instance {machine}"):
        thread = threading.Thread(target=lambda: replies.append(ecs.new_snapshot(disk["DiskId"])))
        thread.start()
        while not ecs.call("describe_snapshots", disk_id=disk["DiskId"])["TotalCount"]:
            assert thread.is_alive()
        with ecs.refused("DiskCreatingSnapshot", 403):
            ecs.call("replace_system_disk", instance_id=machine, image_id=image)
        with ecs.refused("DiskCreatingSnapshot", 403):
            ecs.call("delete_instance", instance_id=machine)
    thread.join(10)
    assert len(replies) == 1
    ecs.release(machine)


def test_nothing_is_left_of_a_snapshot_whose_disk_is_gone(ecs: Any, server: Any, used_disk: str) -> None:
    snapshots, store = server.cloud.snapshots, server.cloud.store
    with snapshots._context.locks.hold(f"disk {used_disk}"):
        with store.transaction() as tx:
            snapshot = snapshots.begin(tx, used_disk, SnapshotOrder())
            tx.remove(find(tx, Disk, used_disk))
        with pytest.raises(ApiError, match="could not be copied"):
            snapshots.copy([snapshot])
    assert ecs.snapshot(snapshot.id) == {"Status": "gone"}


def test_a_copy_does_not_hold_up_others(ecs: Any, server: Any, used_disk: str) -> None:
    """The copy is held up by hand: while somebody else holds the disk, other requests are answered."""
    locks = server.cloud.snapshots._context.locks
    replies: list[str] = []
    with locks.hold(f"disk {used_disk}"):
        thread = threading.Thread(target=lambda: replies.append(ecs.new_snapshot(used_disk)))
        thread.start()
        assert ecs.disk(used_disk)["Status"] == "Available"
        ecs.new_disk()
        assert not replies
    thread.join(10)
    assert len(replies) == 1
