"""What is in the cloud, asked of the real SDK."""

from __future__ import annotations

from alibabacloud_ecs20140526 import models
from alibabacloud_ecs20140526.client import Client

_REGION = {"region_id": "cn-local", "page_size": 100}


def everything(cloud: Client) -> dict[str, set[str]]:
    """The ids of all instances, disks, snapshots and own images, whatever their state and tags."""
    instances = cloud.describe_instances(models.DescribeInstancesRequest(**_REGION)).body.instances.instance
    disks = cloud.describe_disks(models.DescribeDisksRequest(**_REGION)).body.disks.disk
    snapshots = cloud.describe_snapshots(models.DescribeSnapshotsRequest(**_REGION)).body.snapshots.snapshot
    request = models.DescribeImagesRequest(
        **_REGION, image_owner_alias="self", status="Creating,Waiting,Available,UnAvailable,CreateFailed"
    )
    images = cloud.describe_images(request).body.images.image
    return {
        "instances": {each.instance_id for each in instances},
        "disks": {each.disk_id for each in disks},
        "snapshots": {each.snapshot_id for each in snapshots},
        "images": {each.image_id for each in images},
    }


def tagged(cloud: Client, wave: str) -> set[str]:
    """The ids of everything that carries the tag of a wave."""
    found: set[str] = set()
    for kind in ("instance", "disk", "snapshot", "image"):
        request = models.ListTagResourcesRequest(
            region_id="cn-local",
            resource_type=kind,
            tag=[models.ListTagResourcesRequestTag(key="wavelift:wave", value=wave)],
        )
        body = cloud.list_tag_resources(request).body
        found |= {each.resource_id for each in body.tag_resources.tag_resource}
    return found
