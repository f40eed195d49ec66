from typing import Any

import pytest


@pytest.fixture
def disk(ecs: Any) -> str:
    order = {"zone_id": "cn-local-a", "disk_category": "cloud_essd", "performance_level": "PL0"}
    return str(ecs.call("create_disk", size=1, **order)["DiskId"])


def put(ecs: Any, *resources: str, **fields: Any) -> None:
    ecs.call("tag_resources", resource_type="disk", resource_id=list(resources), **fields)


def lines(ecs: Any, **fields: Any) -> list[tuple[str, str, str]]:
    answer = ecs.call("list_tag_resources", **{"resource_type": "disk", **fields})
    return [(t["ResourceId"], t["TagKey"], t["TagValue"]) for t in answer["TagResources"]["TagResource"]]


def test_on_and_off(ecs: Any, disk: str) -> None:
    put(ecs, disk, tags={"wave": "1", "role": "target"})
    put(ecs, disk, tags={"wave": "2"})
    assert lines(ecs, resource_id=[disk]) == [(disk, "role", "target"), (disk, "wave", "2")]
    assert lines(ecs, tags={"wave": "2", "role": "target"}, resource_id=[disk])
    assert lines(ecs, tags={"wave": "1"}, resource_id=[disk]) == []
    assert ecs.disk(disk)["Tags"]["Tag"]
    ecs.call("untag_resources", resource_type="disk", resource_id=[disk], tag_key=["wave"])
    assert lines(ecs, resource_id=[disk]) == [(disk, "role", "target")]
    ecs.call("untag_resources", resource_type="disk", resource_id=[disk])  # neither keys nor all
    assert lines(ecs, resource_id=[disk])
    ecs.call("untag_resources", resource_type="disk", resource_id=[disk], all=True)
    assert lines(ecs, resource_id=[disk]) == []


def test_every_kind(ecs: Any, host: str) -> None:
    for kind, resource in (("instance", host), ("securitygroup", "sg-local-default"), ("image", "host-linux")):
        ecs.call("tag_resources", resource_type=kind, resource_id=[resource], tags={"kind": kind})
        assert lines(ecs, resource_type=kind, resource_id=[resource], tags={"kind": None}) == [(resource, "kind", kind)]


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"aliyun-one": "x"}, "InvalidTagKey.Malformed"),
        ({"acs:one": "x"}, "InvalidTagKey.Malformed"),
        ({"a http://b": "x"}, "InvalidTagKey.Malformed"),
        ({"k" * 129: "x"}, "InvalidTagKey.Malformed"),
        ({"key": "https://x"}, "InvalidTagValue.Malformed"),
        ({"key": "v" * 129}, "InvalidTagValue.Malformed"),
        ({f"k{n}": "v" for n in range(21)}, "NumberExceed.Tags"),
    ],
)
def test_malformed(ecs: Any, disk: str, tags: dict[str, str], code: str) -> None:
    with ecs.refused(code, 400):
        put(ecs, disk, tags=tags)
    assert lines(ecs, resource_id=[disk]) == []


def test_limits(ecs: Any, disk: str) -> None:
    put(ecs, disk, tags={f"k{n}": "v" for n in range(20)})
    with ecs.refused("OperationDenied.QuotaExceed", 400):
        put(ecs, disk, tags={"one": "more"})
    put(ecs, disk, tags={"k0": "changed"})
    with ecs.refused("NumberExceed.ResourceIds", 400):
        put(ecs, *(f"d-{n}" for n in range(51)), tags={"a": "b"})
    with ecs.refused("InvalidResourceId.NotFound", 404):
        put(ecs, disk, "d-none", tags={"a": "b"})
    with ecs.refused("InvalidResourceType.NotFound", 404):
        ecs.call("tag_resources", resource_type="cloud", resource_id=[disk], tags={"a": "b"})
    with ecs.refused("MissingParameter", 400):
        put(ecs, disk)
    with ecs.refused("MissingParameter", 400):
        lines(ecs)


def test_pages(ecs: Any) -> None:
    order = {"zone_id": "cn-local-a", "disk_category": "cloud_essd", "performance_level": "PL0", "size": 1}
    tags = {f"page{n}": "x" for n in range(20)}
    disks = [ecs.call("create_disk", tags=tags, **order)["DiskId"] for _ in range(3)]
    seen, sizes, token = [], [], None
    while token != "":
        answer = ecs.call("list_tag_resources", resource_type="disk", resource_id=disks, next_token=token)
        found = answer["TagResources"]["TagResource"]
        seen += [(t["ResourceId"], t["TagKey"]) for t in found]
        sizes.append(len(found))
        token = answer["NextToken"]
    assert sizes == [50, 10] and len(set(seen)) == 60
    with ecs.refused("InvalidParameter.NextToken", 400):
        ecs.call("list_tag_resources", resource_type="disk", resource_id=disks, next_token="nonsense")
