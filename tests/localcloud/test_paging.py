import base64
from typing import Any

import pytest


@pytest.fixture(scope="module")
def disks(ecs: Any) -> list[str]:
    order = {"zone_id": "cn-local-a", "size": 1, "disk_category": "cloud_essd", "performance_level": "PL0"}
    return [ecs.call("create_disk", **order)["DiskId"] for _ in range(23)]


def ids(answer: dict[str, Any]) -> list[str]:
    return [disk["DiskId"] for disk in answer["Disks"]["Disk"]]


def test_by_number(ecs: Any, disks: list[str]) -> None:
    first = ecs.call("describe_disks")
    assert ids(first) == disks[:10]
    assert (first["PageNumber"], first["PageSize"], first["TotalCount"]) == (1, 10, 23)
    assert ids(ecs.call("describe_disks", page_number=3, page_size=9)) == disks[18:]
    beyond = ecs.call("describe_disks", page_number=9, page_size=9)
    assert (ids(beyond), beyond["TotalCount"]) == ([], 23)


@pytest.mark.parametrize("fields", [{"page_size": 101}, {"page_size": 0}, {"page_number": 0}])
def test_out_of_range(ecs: Any, fields: dict[str, int]) -> None:
    for action in ("describe_disks", "describe_snapshots", "describe_images"):
        with ecs.refused("InvalidParameter", 400):
            ecs.call(action, **fields)


def test_the_nearest_number_of_results(ecs: Any, disks: list[str]) -> None:
    assert len(ids(ecs.call("describe_disks", max_results=2))) == 10
    assert len(ids(ecs.call("describe_disks", max_results=9999))) == 23


def test_by_token(ecs: Any, disks: list[str]) -> None:
    seen, token = [], None
    while token != "":
        page = ecs.call("describe_disks", max_results=10, next_token=token)
        seen += ids(page)
        token = page["NextToken"]
        assert page["TotalCount"] == 0  # not to be relied on
    assert seen == disks


def test_a_token_holds_its_place(ecs: Any, disks: list[str]) -> None:
    """The last disk shown and one before it are deleted: nothing is shown twice, nothing is left out."""
    page = ecs.call("describe_disks", max_results=10)
    for disk_id in (disks[9], disks[3]):
        ecs.wait(ecs.disk, disk_id, "Available")
        ecs.call("delete_disk", disk_id=disk_id)
    assert ids(ecs.call("describe_disks", max_results=10, next_token=page["NextToken"])) == disks[10:20]


@pytest.mark.parametrize(
    "token",
    [
        "nonsense",
        *(base64.b64encode(text).decode() for text in (b"[1]", b"[" * 5000, b"[1" + b"0" * 400 + b', ""]')),
        "e30=",
        "é",
    ],
)
def test_a_token_of_somebody_else(ecs: Any, token: str) -> None:
    with ecs.refused("InvalidParameter.NextToken", 400):
        ecs.call("describe_disks", next_token=token)


def test_a_list_that_is_none(ecs: Any) -> None:
    for ids in ("[" * 5000, "{", "1", "[1]"):
        with ecs.refused("InvalidParameter", 400):
            ecs.call("describe_disks", disk_ids=ids)


def test_too_many_results_of_others(ecs: Any) -> None:
    for action in ("describe_snapshots", "describe_security_groups"):
        with ecs.refused("InvalidParameter", 400):
            ecs.call(action, max_results=101)
