"""What the real SDK sees of each fault, and what the cloud did meanwhile."""

import time
from pathlib import Path
from typing import Any

import oss2
import pytest
from alibabacloud_ecs20140526 import models
from alibabacloud_tea_openapi.exceptions import ClientException, ServerException, ThrottlingException
from aliyunsdkcore.acs_exception.exceptions import ServerException as OldServerException
from aliyunsdkcore.client import AcsClient
from aliyunsdkecs.request.v20140526.DescribeRegionsRequest import DescribeRegionsRequest
from darabonba.exceptions import UnretryableException

from tests.localcloud.conftest import KEY, REGION, SECRET, ZONE
from tests.localcloud.faults.conftest import Order
from tests.localcloud.test_sts import Sts
from wavelift.localcloud.faults.book import Counter
from wavelift.localcloud.faults.calls import Faults
from wavelift.localcloud.faults.rules import Rule
from wavelift.localcloud.server import LocalCloud

DISK = {"zone_id": ZONE, "size": 1, "disk_category": "cloud_essd", "performance_level": "PL0"}


def disks(ecs: Any, name: str) -> list[str]:
    return [disk["DiskId"] for disk in ecs.call("describe_disks", disk_name=name)["Disks"]["Disk"]]


@pytest.mark.parametrize(
    ("kind", "fault", "error", "code", "status"),
    [
        ("throttle", {}, ClientException, "Throttling.User", 400),
        ("throttle", {"code": "Throttling.Api"}, ClientException, "Throttling.Api", 400),
        ("internal-error", {}, ServerException, "InternalError", 500),
        ("unavailable", {}, ServerException, "ServiceUnavailable", 503),
        ("no-stock", {}, ClientException, "OperationDenied.NoStock", 403),
        ("quota", {}, ClientException, "QuotaExceed.ElasticQuota", 403),
        ("quota", {"code": "QuotaExceed.PortableCloudDisk"}, ClientException, "QuotaExceed.PortableCloudDisk", 403),
        ("forbidden", {}, ClientException, "Forbidden.RAM", 403),
        ("error", {"code": "Conflict", "message": "later", "status": 409}, ClientException, "Conflict", 409),
    ],
)  # fmt: skip
def test_an_error_is_the_services_own(
    ecs: Any, faults: Faults, order: Order, kind: str, fault: dict[str, Any], error: type, code: str, status: int
) -> None:
    rule = order(kind, fault=fault, service="ecs", action="CreateDisk", calls=[2])
    made = ecs.call("create_disk", **DISK, disk_name=f"before-{kind}{code}")["DiskId"]
    with pytest.raises(error) as caught:
        ecs.call("create_disk", **DISK, disk_name=f"refused-{kind}{code}")
    assert (caught.value.code, caught.value.status_code) == (code, status)
    assert not isinstance(caught.value, ThrottlingException)
    assert disks(ecs, f"refused-{kind}{code}") == [] and disks(ecs, f"before-{kind}{code}") == [made]
    (entry,) = faults.log(rule)
    assert (entry.kind, entry.service, entry.action, entry.number) == (kind, "ecs", "CreateDisk", 1)
    assert entry.request_id == caught.value.request_id and abs(entry.time - time.time()) < 60
    assert faults.counter(rule) == Counter(selected=2, injected=1)


def test_throttling_may_say_when_to_come_back(ecs: Any, order: Order) -> None:
    order("throttle", fault={"retry_after_ms": 1500}, action="DescribeRegions", times=1)
    with pytest.raises(ThrottlingException) as caught:
        ecs.call("describe_regions")
    assert (caught.value.code, caught.value.retry_after) == ("Throttling.User", 1500)
    ecs.call("describe_regions")


def test_the_older_sdk_sees_the_same(server: Any, order: Order) -> None:
    order("throttle", action="DescribeRegions")
    host, port = server.endpoint.split(":")
    client = AcsClient(KEY, SECRET, REGION, port=int(port), proxy={"http": None}, max_retry_time=0, auto_retry=False)
    request = DescribeRegionsRequest()
    request.set_endpoint(host)
    request.set_accept_format("XML")
    with pytest.raises(OldServerException) as caught:
        client.do_action_with_exception(request)
    assert (caught.value.get_error_code(), caught.value.get_http_status()) == ("Throttling.User", 400)


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("bad-gateway", "<title>502 Bad Gateway</title>"),
        ("reset", "ConnectionResetError"),
        ("drop-reply", "Remote end closed connection without response"),
    ],
)
@pytest.mark.parametrize("action", ["create_disk", "describe_disks"])
def test_a_lost_reply_is_no_reply(ecs: Any, faults: Faults, order: Order, kind: str, cause: str, action: str) -> None:
    name = f"lost-{kind}"
    fields = {**DISK, "disk_name": name} if action == "create_disk" else {"disk_name": name}
    before = disks(ecs, name)
    rule = order(kind, times=1)
    with pytest.raises(UnretryableException) as caught:
        ecs.call(action, **fields)
    assert cause in str(caught.value.inner_exception)
    assert faults.counter(rule).injected == 1
    # Only the reply was dropped: the action was carried out.
    made = 1 if kind == "drop-reply" and action == "create_disk" else 0
    assert len(disks(ecs, name)) == len(before) + made


def test_a_repeat_with_its_token_finds_what_was_committed(ecs: Any, faults: Faults, order: Order) -> None:
    order("drop-reply", action="CreateDisk", calls=[1])
    with pytest.raises(UnretryableException):
        ecs.call("create_disk", **DISK, disk_name="once", client_token="tried-twice")
    again = ecs.call("create_disk", **DISK, disk_name="once", client_token="tried-twice")["DiskId"]
    assert disks(ecs, "once") == [again] and len(faults.log()) == 1


def test_what_is_refused_takes_no_turn_of_a_lost_reply(ecs: Any, faults: Faults, order: Order) -> None:
    rule = order("drop-reply", action="CreateDisk", calls=[1])
    with ecs.refused("InvalidZoneId.NotFound", 404):
        ecs.call("create_disk", **{**DISK, "zone_id": "nowhere"})
    assert faults.counter(rule) == Counter() and faults.log() == []
    with pytest.raises(UnretryableException):
        ecs.call("create_disk", **DISK, disk_name="after-refusal")
    assert faults.counter(rule) == Counter(1, 1) and len(disks(ecs, "after-refusal")) == 1


def test_a_repeat_without_a_token_is_another_order(ecs: Any, order: Order) -> None:
    order("drop-reply", action="CreateDisk", calls=[1])
    with pytest.raises(UnretryableException):
        ecs.call("create_disk", **DISK, disk_name="twice")
    ecs.call("create_disk", **DISK, disk_name="twice")
    assert len(disks(ecs, "twice")) == 2


def test_a_repeat_where_no_token_exists_meets_its_own_work(ecs: Any, order: Order, host: str) -> None:
    disk = ecs.new_disk()
    rule = order("drop-reply", action="AttachDisk", resource=disk, times=1)
    with pytest.raises(UnretryableException):
        ecs.attach(disk, host)
    with ecs.refused("IncorrectDiskStatus", 403):
        ecs.attach(disk, host)
    assert ecs.wait(ecs.disk, disk, "In_use")["InstanceId"] == host
    assert rule == "rule-1"


def test_a_late_reply_comes(ecs: Any, faults: Faults, order: Order) -> None:
    order("delay", fault={"seconds": 0.2}, action="DescribeRegions")
    begun = time.monotonic()
    assert ecs.call("describe_regions")["Regions"]["Region"]
    assert time.monotonic() - begun >= 0.2 and len(faults.log()) == 1


def test_a_rule_is_about_what_the_request_names(ecs: Any, faults: Faults, order: Order) -> None:
    one, other = ecs.new_disk(), ecs.new_disk()
    order("throttle", resource=one)
    ecs.call("delete_disk", disk_id=other)
    with ecs.refused("Throttling.User", 400):
        ecs.call("delete_disk", disk_id=one)
    with ecs.refused("Throttling.User", 400):
        ecs.disk(one)
    assert [(entry.action, entry.resource) for entry in faults.log()] == [("DeleteDisk", one), ("DescribeDisks", one)]
    order("forbidden", parameters={"DiskName": "secret-*"})
    with ecs.refused("Forbidden.RAM", 403):
        ecs.call("create_disk", **DISK, disk_name="secret-1")
    # Its end is a change that reads may lag behind: it is not to fall into another test.
    ecs.new_disk(disk_name="open-1")


def test_reads_lag_behind_changes(ecs: Any, faults: Faults, order: Order) -> None:
    kept, gone = ecs.new_disk(disk_name="lagging"), ecs.new_disk(disk_name="lagging")
    rule = order("stale", fault={"seconds": 600})
    assert disks(ecs, "lagging") == [kept, gone]
    # Nothing has changed since the rule, so no read was stale.
    assert faults.counter(rule).injected == 0
    ecs.call("delete_disk", disk_id=gone)
    made = ecs.call("create_disk", **DISK, disk_name="lagging")["DiskId"]
    assert disks(ecs, "lagging") == [kept, gone] and ecs.disk(made)["Status"] == "gone"
    assert faults.counter(rule).injected == 2
    # Only replies lag: what is done is done on what is true.
    ecs.call("delete_disk", disk_id=gone)
    faults.remove(rule)
    assert disks(ecs, "lagging") == [kept, made]
    assert {entry.action for entry in faults.log()} == {"DescribeDisks"}


def test_a_lag_ends(ecs: Any, faults: Faults, order: Order) -> None:
    rule = order("stale", fault={"seconds": 600})
    made = ecs.call("create_disk", **DISK, disk_name="soon")["DiskId"]
    assert disks(ecs, "soon") == []
    faults.replace(rule, Rule.model_validate({"fault": {"kind": "stale", "seconds": 0.3}}))
    ecs.wait(ecs.disk, made, "Available")


def test_a_disk_that_cannot_be_made_is_gone(ecs: Any, faults: Faults, order: Order) -> None:
    rule = order("failed-transition", fault={"of": "disk", "state": "Creating"})
    disk = ecs.call("create_disk", **DISK)["DiskId"]
    ecs.wait(ecs.disk, disk, "gone")
    (entry,) = faults.log(rule)
    assert (entry.kind, entry.resource, entry.action) == ("failed-transition", disk, "")


def test_attaching_and_detaching_fail_back(ecs: Any, faults: Faults, order: Order, host: str) -> None:
    disk = ecs.new_disk()
    order("failed-transition", fault={"of": "disk", "state": "Attaching"}, resource=disk, times=1)
    ecs.call("attach_disk", disk_id=disk, instance_id=host)
    assert ecs.wait(ecs.disk, disk, "Available")["InstanceId"] == ""
    ecs.attach(disk, host)
    order("failed-transition", fault={"of": "disk", "state": "Detaching"}, times=1)
    ecs.call("detach_disk", disk_id=disk, instance_id=host)
    assert ecs.wait(ecs.disk, disk, "In_use")["InstanceId"] == host
    ecs.detach(disk, host)
    assert len(faults.log()) == 2


def test_snapshot_and_image_fail(ecs: Any, order: Order, used_disk: str) -> None:
    order("failed-transition", fault={"of": "snapshot", "state": "progressing"}, calls=[1])
    failed = ecs.call("create_snapshot", disk_id=used_disk)["SnapshotId"]
    ecs.wait(ecs.snapshot, failed, "failed")
    whole = ecs.new_snapshot(used_disk)
    order("failed-transition", fault={"of": "image", "state": "Creating"}, times=1)
    mapping = models.CreateImageRequestDiskDeviceMapping(device="/dev/xvda", disk_type="system", snapshot_id=whole)
    image = ecs.call("create_image", disk_device_mapping=[mapping])["ImageId"]
    ecs.wait(ecs.image, image, "CreateFailed")


def test_an_instance_that_does_not_start_is_stopped(ecs: Any, faults: Faults, order: Order) -> None:
    rule = order("failed-transition", fault={"of": "instance", "state": "Starting"}, times=1)
    instance = ecs.run("host-linux", "exec sleep 600")
    ecs.wait(ecs.instance, instance, "Stopped")
    assert faults.counter(rule).injected == 1
    ecs.call("start_instance", instance_id=instance)
    ecs.wait(ecs.instance, instance, "Running")
    ecs.release(instance)


def test_a_full_disk_fails_disks_and_snapshots(ecs: Any, faults: Faults, order: Order, used_disk: str) -> None:
    order("disk-full", fault={"of": "disk"}, times=1)
    disk = ecs.call("create_disk", **DISK, client_token="no-room")["DiskId"]
    ecs.wait(ecs.disk, disk, "gone")
    again = ecs.call("create_disk", **DISK, client_token="no-room")["DiskId"]
    ecs.wait(ecs.disk, again, "Available")
    order("disk-full", fault={"of": "snapshot"}, times=1)
    with pytest.raises(ServerException) as caught:
        ecs.call("create_snapshot", disk_id=used_disk, snapshot_name="no-room")
    assert caught.value.code == "InternalError"
    assert ecs.call("describe_snapshots", snapshot_name="no-room")["TotalCount"] == 0
    assert [entry.kind for entry in faults.log()] == ["disk-full", "disk-full"]
    # There is room again.
    assert ecs.new_snapshot(used_disk)


def test_an_import_fails_for_want_of_room_or_with_its_task(
    ecs: Any, server: LocalCloud, faults: Faults, order: Order, tmp_path: Path
) -> None:
    session = oss2.Session()
    session.session.trust_env = False
    auth = oss2.AuthV4(KEY, SECRET)
    bucket = oss2.Bucket(auth, f"http://{server.oss_endpoint}", "imports", region=REGION, session=session)
    bucket.create_bucket()
    bucket.put_object("disk.raw", b"boot" * 1024)
    source = models.ImportImageRequestDiskDeviceMapping(ossbucket="imports", ossobject="disk.raw", format="RAW")
    rule = order("disk-full", fault={"of": "snapshot"}, times=1)
    for status in ("CreateFailed", "Available"):
        image = ecs.call("import_image", disk_device_mapping=[source])["ImageId"]
        ecs.wait(ecs.image, image, status)
    assert faults.counter(rule) == Counter(selected=2, injected=1)
    task = order("failed-transition", fault={"of": "task", "state": "Processing"})
    image = ecs.call("import_image", disk_device_mapping=[source])["ImageId"]
    ecs.wait(ecs.image, image, "CreateFailed")
    assert faults.counter(task) == Counter(1, 1)


def test_temporary_keys_fail_too(server: LocalCloud, faults: Faults, order: Order) -> None:
    rule = order("throttle", service="sts", parameters={"RoleSessionName": "alice"}, times=1)
    sts = Sts(server.endpoint)
    assert sts.refused("AssumeRole") == (400, "Throttling.User")
    assert sts.assume()["Credentials"]["SecurityToken"]
    assert [(entry.service, entry.action) for entry in faults.log(rule)] == [("sts", "AssumeRole")]
