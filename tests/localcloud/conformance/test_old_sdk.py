"""The older Python SDK (HMAC-SHA1 among the parameters) through the life of disks, snapshots, images and instances."""

import base64
import importlib
import json
import time
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest
from aliyunsdkcore.acs_exception.exceptions import ServerException
from aliyunsdkcore.auth.credentials import StsTokenCredential
from aliyunsdkcore.client import AcsClient

from tests.localcloud.conftest import KEY, REGION, SECRET, ZONE

REQUESTS = "aliyunsdkecs.request.v20140526"


class OldEcs:
    def __init__(self, endpoint: str, secret: str = SECRET, token: StsTokenCredential | None = None) -> None:
        self.endpoint = endpoint
        self.client = AcsClient(KEY, secret, REGION) if token is None else AcsClient(region_id=REGION, credential=token)

    def request(self, action: str, **fields: Any) -> Any:
        name = f"{action}Request"
        request = getattr(importlib.import_module(f"{REQUESTS}.{name}"), name)()
        request.set_endpoint(self.endpoint)
        for field, value in fields.items():
            getattr(request, f"set_{field}")(value)
        return request

    def call(self, action: str, **fields: Any) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.client.do_action_with_exception(self.request(action, **fields)))
        return answer

    def refused(self, action: str, **fields: Any) -> tuple[int, str]:
        with pytest.raises(ServerException) as caught:
            self.call(action, **fields)
        return caught.value.get_http_status(), caught.value.get_error_code()

    def wait(self, kind: str, identifier: str, status: str) -> dict[str, Any]:
        """Until it has the status; "gone" is one, too."""
        names = {"Image": {"ImageId": identifier, "Status": "Creating,Available"}}
        ids = names.get(kind, {f"{kind}Ids": json.dumps([identifier])})
        deadline = time.monotonic() + 20
        while True:
            found = self.call(f"Describe{kind}s", **ids)[f"{kind}s"][kind]
            if (found[0]["Status"] if found else "gone") == status:
                return found[0] if found else {}
            assert time.monotonic() < deadline, f"{identifier} is not {status}: {found}"
            time.sleep(0.03)


@pytest.fixture
def old(server: Any) -> OldEcs:
    return OldEcs(server.endpoint)


@pytest.fixture
def instance(old: OldEcs) -> Iterator[str]:
    answer = old.call(
        "RunInstances",
        ImageId="host-linux",
        InstanceType="ecs.c7.large",
        VSwitchId="vsw-local-a",
        SecurityGroupId="sg-local-default",
        SystemDiskSize="1",
        SystemDiskCategory="cloud_essd",
        SystemDiskPerformanceLevel="PL0",
        UserData=base64.b64encode(b"exec sleep 600").decode(),
        Tags=[{"Key": "made-by", "Value": "the older SDK"}],
    )
    [identifier] = answer["InstanceIdSets"]["InstanceIdSet"]
    old.wait("Instance", identifier, "Running")
    yield identifier
    old.call("DeleteInstance", InstanceId=identifier, Force=True)
    old.wait("Instance", identifier, "gone")


def test_disks_and_snapshots(old: OldEcs, instance: str) -> None:
    order = {"ZoneId": ZONE, "DiskCategory": "cloud_essd", "PerformanceLevel": "PL0", "Size": 1}
    tags = [{"Key": "wave", "Value": "1"}, {"Key": "name", "Value": "ä b+c/d"}]
    disk = old.call("CreateDisk", DiskName="data", Tags=tags, **order)["DiskId"]
    made = old.wait("Disk", disk, "Available")
    assert (made["Size"], made["DiskName"], made["ZoneId"]) == (1, "data", ZONE)
    assert {tag["TagKey"]: tag["TagValue"] for tag in made["Tags"]["Tag"]} == {"wave": "1", "name": "ä b+c/d"}
    assert old.refused("CreateSnapshot", DiskId=disk) == (403, "IncorrectDiskStatus.NeverAttached")

    old.call("AttachDisk", DiskId=disk, InstanceId=instance)
    assert old.wait("Disk", disk, "In_use")["InstanceId"] == instance
    assert old.refused("DeleteDisk", DiskId=disk)[1] == "IncorrectDiskStatus"

    snapshot = old.call("CreateSnapshot", DiskId=disk, SnapshotName="first")["SnapshotId"]
    assert old.wait("Snapshot", snapshot, "accomplished")["SourceDiskId"] == disk
    old.call("DetachDisk", DiskId=disk, InstanceId=instance)
    old.wait("Disk", disk, "Available")

    copy = old.call("CreateDisk", SnapshotId=snapshot, **order)["DiskId"]
    assert old.wait("Disk", copy, "Available")["SourceSnapshotId"] == snapshot
    for identifier in (disk, copy):
        old.call("DeleteDisk", DiskId=identifier)
        old.wait("Disk", identifier, "gone")
    old.call("DeleteSnapshot", SnapshotId=snapshot, Force=True)
    old.wait("Snapshot", snapshot, "gone")


def test_an_image_of_a_snapshot(old: OldEcs, instance: str) -> None:
    order = {"ZoneId": ZONE, "DiskCategory": "cloud_essd", "PerformanceLevel": "PL0", "Size": 1}
    disk = old.call("CreateDisk", **order)["DiskId"]
    old.wait("Disk", disk, "Available")
    old.call("AttachDisk", DiskId=disk, InstanceId=instance)
    old.wait("Disk", disk, "In_use")
    snapshot = old.call("CreateSnapshot", DiskId=disk)["SnapshotId"]
    old.wait("Snapshot", snapshot, "accomplished")
    mapping = [{"Device": "/dev/xvda", "DiskType": "system", "SnapshotId": snapshot}]
    image = old.call("CreateImage", ImageName="made", DiskDeviceMappings=mapping)["ImageId"]
    old.wait("Image", image, "Available")
    assert old.refused("DeleteSnapshot", SnapshotId=snapshot)[1] == "SnapshotCreatedImage"
    old.call("DeleteImage", ImageId=image)
    old.wait("Image", image, "gone")
    old.call("DeleteSnapshot", SnapshotId=snapshot)
    old.call("DetachDisk", DiskId=disk, InstanceId=instance)
    old.wait("Disk", disk, "Available")
    old.call("DeleteDisk", DiskId=disk)


def test_errors_as_the_sdk_understands_them(old: OldEcs) -> None:
    assert old.refused("DeleteDisk") == (400, "MissingParameter")
    assert old.refused("DetachDisk", DiskId="d-none", InstanceId="i-none") == (404, "InvalidDiskId.NotFound")
    assert old.refused("CreateDisk", ZoneId=ZONE, Size="big") == (400, "InvalidParameter")
    stranger = AcsClient("NOBODY", SECRET, REGION)
    with pytest.raises(ServerException) as caught:
        stranger.do_action_with_exception(old.request("DescribeRegions"))
    assert (caught.value.get_http_status(), caught.value.get_error_code()) == (404, "InvalidAccessKeyId.NotFound")
    assert caught.value.get_request_id()


def test_another_region(old: OldEcs) -> None:
    elsewhere = AcsClient(KEY, SECRET, "cn-moon")
    with pytest.raises(ServerException) as caught:
        elsewhere.do_action_with_exception(old.request("DescribeDisks"))
    assert caught.value.get_error_code() == "InvalidRegionId.NotFound"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_sdk_finds_out_that_only_the_secret_is_wrong(old: OldEcs, method: str) -> None:
    """It compares the server's string to sign with its own, letter by letter."""
    request = old.request("DescribeRegions", AcceptLanguage="ä b+c/d~e*")
    request.set_method(method)
    with pytest.raises(ServerException) as caught:
        OldEcs(old.endpoint, secret="guessed").client.do_action_with_exception(request)
    assert caught.value.get_error_code() == "InvalidAccessKeySecret"


def test_parameters_in_the_body(old: OldEcs) -> None:
    request = old.request("DescribeDisks")
    request.add_body_params("DiskIds", json.dumps(["d-none"]))
    assert json.loads(old.client.do_action_with_exception(request))["TotalCount"] == 0


def test_xml(old: OldEcs) -> None:
    request = old.request("DescribeZones")
    request.set_accept_format("XML")
    with pytest.deprecated_call():  # the way that leaves the format alone
        body = old.client.do_action(request)
    answer = ElementTree.fromstring(body)
    assert answer.tag == "DescribeZonesResponse"
    assert [zone.findtext("ZoneId") for zone in answer.findall("Zones/Zone")] == ["cn-local-a", "cn-local-b"]


def test_temporary_keys(old: OldEcs, server: Any) -> None:
    issued = server.accounts.issue(900)
    token = StsTokenCredential(issued.key, issued.secret, issued.token)
    assert OldEcs(old.endpoint, token=token).call("DescribeRegions")["Regions"]["Region"]
