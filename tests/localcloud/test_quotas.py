from collections.abc import Iterator
from typing import Any

import pytest
from alibabacloud_ecs20140526 import models

from wavelift.localcloud.model.context import Options
from wavelift.localcloud.model.quotas import Quotas
from wavelift.localcloud.server import LocalCloud

QUOTAS = Quotas(disks=4, instances=2, images=1, groups=2, snapshots_per_disk=2, accounts_per_image=1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, ecs: Any) -> Iterator[Any]:
    options = Options(host_instances=True, grace=1.0, quotas=QUOTAS)
    with LocalCloud(tmp_path_factory.mktemp("small"), {"K": "S"}, options) as server:
        yield type(ecs)(server.endpoint, "K", "S")


@pytest.fixture(scope="module")
def disk(small: Any) -> str:
    """The second of four, with the system disk of the first of two instances."""
    host, disk_id = small.run_host(), small.new_disk()
    small.attach(disk_id, host)
    return str(disk_id)


def test_snapshots_and_images(small: Any, disk: str) -> None:
    first = small.new_snapshot(disk)
    small.new_snapshot(disk)
    with small.refused("QuotaExceed.Snapshot", 400):
        small.new_snapshot(disk)
    image = small.new_image(first)
    with small.refused("QuotaExceed.Image", 403):
        small.new_image(first)
    accounts = ["1234567890123456", "1234567890123457"]
    with small.refused("QuotaExceed.ShareImageUser", 403):
        small.call("modify_image_share_permission", image_id=image, add_account=accounts)
    small.call("delete_image", image_id=image)
    small.call("delete_image", image_id=small.new_image(first))


def test_groups(small: Any) -> None:
    small.call("create_security_group", security_group_name="second")
    with small.refused("QuotaExceed.SecurityGroup", 403):
        small.call("create_security_group", security_group_name="third")


def test_disks_and_instances(small: Any, disk: str) -> None:
    other = small.run_host()  # has the third disk
    with small.refused("QuotaExceed.ElasticQuota", 403):
        small.run_host()
    last = small.new_disk()
    with small.refused("QuotaExceed.PostPaidDisk", 403):
        small.new_disk()
    small.release(other)
    data = models.RunInstancesRequestDataDisk(size=1, category="cloud_essd", performance_level="PL0")
    with small.refused("QuotaExceed.PostPaidDisk", 403):
        small.run("host-linux", "true", data_disk=[data])
    small.call("delete_disk", disk_id=last)
