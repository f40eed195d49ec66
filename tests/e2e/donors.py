"""The demo's manifest and connection for an account that may make no system disk of a data disk's snapshot."""

from __future__ import annotations

import json
import time

import oss2
from alibabacloud_ecs20140526 import models

from demo.stack import BUCKET, Stack, cloud_extra

CONNECTION = "cloud_donor"


def with_a_donor(demo: str) -> str:
    return demo.replace("wave: demo", "wave: donor").replace(
        "connection: wavelift_cloud ", f"connection: {CONNECTION} "
    )


def connect(stack: Stack) -> None:
    """Imports a donor image, as everybody may, and adds the connection that names it."""
    auth = oss2.AuthV4(*stack.access_key)
    bucket = oss2.Bucket(auth, f"http://{stack.oss_endpoint}", BUCKET, region="cn-local", is_path_style=True)
    bucket.put_object("donor.raw", b"boots nothing" * 1000)
    cloud = stack.cloud()
    source = models.ImportImageRequestDiskDeviceMapping(
        ossbucket=BUCKET, ossobject="donor.raw", format="RAW", disk_image_size=1
    )
    order = models.ImportImageRequest(
        region_id="cn-local", image_name="donor", boot_mode="BIOS", disk_device_mapping=[source]
    )
    image = cloud.import_image(order).body.image_id
    deadline = time.monotonic() + 60
    while not cloud.describe_images(
        models.DescribeImagesRequest(region_id="cn-local", image_id=image)
    ).body.images.image:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    stack.airflow().set_connection(
        {
            "connection_id": CONNECTION,
            "conn_type": "wavelift_alibaba",
            "login": stack.access_key[0],
            "password": stack.access_key[1],
            "extra": json.dumps({**cloud_extra(stack), "image_strategy": "donor", "donor_image": image}),
        }
    )
