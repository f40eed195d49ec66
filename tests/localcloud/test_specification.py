"""Parameters against the SDK's own models."""

import pytest

from wavelift.localcloud.actions import ACTIONS
from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.rpc.specification import check, of


def refused(action: str, **parameters: str) -> tuple[str, str]:
    with pytest.raises(ApiError) as caught:
        check(action, {name.replace("__", "."): value for name, value in parameters.items()})
    return caught.value.code, caught.value.message.split('"')[1]


DISK = {"RegionId": "cn-local", "ZoneId": "cn-local-a"}


def test_good_parameters_pass() -> None:
    check("CreateDisk", DISK | {"Size": "20", "Tag.1.Key": "a", "Tag.2.Key": "b", "OwnerId": "-1"})
    check("DeleteSnapshot", {"SnapshotId": "s-1", "Force": "True"})
    check("RunInstances", {"RegionId": "cn-local", "SpotPriceLimit": "0.98", "DataDisk.1.Size": "5"})
    check("DescribeRegions", {})


def test_what_the_sdk_does_not_know_is_ignored() -> None:
    check("CreateDisk", DISK | {"Colour": "red", "Tag.1.Colour": "red", "Colour.x": "red", "RegionId.x": "y"})


def test_required() -> None:
    assert refused("CreateDisk", ZoneId="cn-local-a") == ("MissingParameter", "RegionId")
    assert refused("CreateDisk", RegionId="") == ("MissingParameter", "RegionId")
    assert refused("TagResources", RegionId="r", ResourceType="disk") == ("MissingParameter", "ResourceId")
    many: dict[str, str] = {"RegionId": "r", "ResourceType": "disk", "ResourceId.1": "d-1", "Tag.1.Key": "k"}
    check("TagResources", many)


@pytest.mark.parametrize(
    ("action", "name", "value"),
    [
        ("CreateDisk", "Size", "5GiB"),
        ("CreateDisk", "Size", "5.0"),
        ("CreateDisk", "Encrypted", "yes"),
        ("RunInstances", "SpotPriceLimit", "cheap"),
        ("RunInstances", "DataDisk.1.Size", "big"),
        ("RunInstances", "NetworkInterface.2.DeleteOnRelease", "1"),
    ],
)
def test_types(action: str, name: str, value: str) -> None:
    with pytest.raises(ApiError) as caught:
        check(action, DISK | {name: value})
    assert (caught.value.code, name in caught.value.message) == ("InvalidParameter", True)


@pytest.mark.parametrize("index", ["0", "x", "-1", "01", "99999", ""])
def test_indexes_count_from_one(index: str) -> None:
    with pytest.raises(ApiError) as caught:
        check("CreateDisk", DISK | {f"Tag.{index}.Key": "a"})
    assert caught.value.code == "InvalidParameter"
    with pytest.raises(ApiError):
        check("RunInstances", {"RegionId": "r", f"NetworkInterface.1.SecurityGroupIds.{index}": "sg-1"})


def test_every_action_that_is_offered_has_a_specification() -> None:

    assert all(isinstance(of(action).required, tuple) for action in ACTIONS)
