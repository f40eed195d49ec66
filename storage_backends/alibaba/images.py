"""Images and instances of Alibaba Cloud: an image of snapshots, instances run, looked at and deleted."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Sequence

from alibabacloud_ecs20140526 import models
from PIL import Image

from storage_backends.alibaba.ecs import EcsApi
from storage_backends.alibaba.inventory import Inventory, tagged
from storage_backends.alibaba.settings import AlibabaSettings
from storage_backends.base import Firmware, InstanceSpec, Kind, Labels, Resource
from storage_backends.errors import Conflict

_PUBLIC_BANDWIDTH_MBIT = 5
_DELETE_SECONDS = 60.0


class Images:
    def __init__(self, settings: AlibabaSettings, api: EcsApi, inventory: Inventory) -> None:
        self._settings = settings
        self._api = api
        self._inventory = inventory

    def create_image(self, labels: Labels, snapshots: Sequence[Resource], firmware: Firmware) -> Resource:
        mapping = [
            models.CreateImageRequestDiskDeviceMapping(
                device=f"/dev/xvd{chr(ord('a') + index)}",
                disk_type="data" if index else "system",
                snapshot_id=snapshot.id,
                size=snapshot.size_gib or None,
            )
            for index, snapshot in enumerate(snapshots)
        ]

        def create(token: str, name: str) -> str:
            request = models.CreateImageRequest(
                region_id=self._settings.region,
                image_name=name,
                architecture="x86_64",
                boot_mode=firmware.upper(),
                platform="Others Linux",
                disk_device_mapping=mapping,
                client_token=token,
                tag=tagged(models.CreateImageRequestTag, labels),
            )
            return str(self._api.call("create_image", request)["ImageId"])

        return self._inventory.once(Kind.IMAGE, labels, create)

    def run_instance(self, labels: Labels, spec: InstanceSpec, user_data: str | None = None) -> Resource:
        group = self._inventory.security_group(spec.security_group)

        def create(token: str, name: str) -> str:
            request = models.RunInstancesRequest(
                region_id=self._settings.region,
                zone_id=self._settings.zone,
                image_id=spec.image_id,
                instance_type=spec.instance_type,
                instance_name=name,
                v_switch_id=spec.vswitch,
                security_group_id=group,
                internet_max_bandwidth_out=_PUBLIC_BANDWIDTH_MBIT if spec.public_ip else 0,
                system_disk=models.RunInstancesRequestSystemDisk(
                    category=spec.disk_category,
                    size=str(spec.system_gib),
                    performance_level=spec.performance_level,
                ),
                user_data=base64.b64encode(user_data.encode()).decode() if user_data else None,
                amount=1,
                client_token=token,
                tag=tagged(models.RunInstancesRequestTag, labels),
            )
            ids = self._api.call("run_instances", request)["InstanceIdSets"]["InstanceIdSet"]
            return str(ids[0])

        return self._inventory.once(Kind.INSTANCE, labels, create)

    def console(self, instance_id: str) -> str:
        request = models.GetInstanceConsoleOutputRequest(region_id=self._settings.region, instance_id=instance_id)
        encoded = self._api.call("get_instance_console_output", request).get("ConsoleOutput") or ""
        return base64.b64decode(encoded).decode("utf-8", errors="replace")

    def screenshot(self, instance_id: str) -> bytes:
        request = models.GetInstanceScreenshotRequest(region_id=self._settings.region, instance_id=instance_id)
        jpeg = base64.b64decode(self._api.call("get_instance_screenshot", request)["Screenshot"])
        png = io.BytesIO()
        Image.open(io.BytesIO(jpeg)).save(png, "PNG")
        return png.getvalue()

    def delete_image(self, image_id: str) -> None:
        """Raises NotFound. Instances made from it run on."""
        request = models.DeleteImageRequest(region_id=self._settings.region, image_id=image_id, force=True)
        self._api.call("delete_image", request)

    def delete_instance(self, instance_id: str) -> None:
        """Refused while it starts, and when the reply to an earlier attempt was lost: then it goes by itself."""
        request = models.DeleteInstanceRequest(instance_id=instance_id, force=True)
        deadline = time.monotonic() + _DELETE_SECONDS
        while True:
            try:
                self._api.call("delete_instance", request)
                return
            except Conflict:
                if time.monotonic() > deadline:
                    raise
            time.sleep(min(1.0, self._settings.poll_seconds))
