"""A local cloud on a free port and the real SDK pointed at it."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_ecs20140526 import models
from alibabacloud_ecs20140526.client import Client
from alibabacloud_tea_openapi.exceptions import ClientException
from alibabacloud_tea_openapi.models import Config

from wavelift.localcloud.model.context import Options
from wavelift.localcloud.server import LocalCloud

KEY, SECRET = "LOCALTEST", "a secret for tests"
REGION, ZONE = "cn-local", "cn-local-a"
SLEEP = "exec sleep 600"


class Ecs:
    """The real SDK with the region filled in, and waits."""

    def __init__(self, endpoint: str, key: str = KEY, secret: str = SECRET, token: str = "") -> None:
        self.endpoint = endpoint
        self.client = Client(
            Config(
                access_key_id=key,
                access_key_secret=secret,
                security_token=token or None,
                endpoint=endpoint,
                protocol="http",
                region_id=REGION,
                no_proxy="127.0.0.1",
                read_timeout=30000,
            )
        )

    def call(self, action: str, **fields: Any) -> dict[str, Any]:
        """`call("create_disk", size=1)`; the answer is the response as it came, without the SDK's classes."""
        name = "".join(part.capitalize() for part in action.split("_")).replace("Vswitch", "VSwitch")
        request = getattr(models, f"{name}Request")()
        if hasattr(request, "region_id"):
            request.region_id = REGION
        if tags := fields.pop("tags", None):
            tag = getattr(models, f"{name}RequestTag")
            request.tag = [tag(key=key, value=value) for key, value in tags.items()]
        for field, value in fields.items():
            assert hasattr(request, field), f"{name}Request has no {field}"
            setattr(request, field, value)
        response: dict[str, Any] = getattr(self.client, action)(request).body.to_map()
        return response

    @contextmanager
    def refused(self, code: str, status: int) -> Iterator[None]:
        with pytest.raises(ClientException) as caught:
            yield
        assert (caught.value.code, caught.value.status_code) == (code, status), caught.value.message

    def disk(self, disk_id: str) -> dict[str, Any]:
        return self._one("describe_disks", "Disks", "Disk", disk_ids=json.dumps([disk_id]))

    def snapshot(self, snapshot_id: str) -> dict[str, Any]:
        return self._one("describe_snapshots", "Snapshots", "Snapshot", snapshot_ids=json.dumps([snapshot_id]))

    def image(self, image_id: str) -> dict[str, Any]:
        statuses = "ALL"
        return self._one("describe_images", "Images", "Image", image_id=image_id, status=statuses)

    def instance(self, instance_id: str) -> dict[str, Any]:
        return self._one("describe_instances", "Instances", "Instance", instance_ids=json.dumps([instance_id]))

    def _one(self, action: str, outer: str, inner: str, **fields: Any) -> dict[str, Any]:
        found = self.call(action, **fields)[outer][inner]
        return found[0] if found else {"Status": "gone"}

    def wait(self, look: Callable[[str], dict[str, Any]], identifier: str, status: str, limit: float = 20) -> Any:
        deadline = time.monotonic() + limit
        while (found := look(identifier))["Status"] != status:
            assert time.monotonic() < deadline, f"{identifier} is {found['Status']}, not {status}"
            time.sleep(0.03)
        return found

    def new_disk(self, size: int = 1, **fields: Any) -> str:
        values = {"zone_id": ZONE, "disk_category": "cloud_essd", "performance_level": "PL0", **fields}
        disk_id: str = self.call("create_disk", size=size, **values)["DiskId"]
        self.wait(self.disk, disk_id, "Available")
        return disk_id

    def attach(self, disk_id: str, instance_id: str) -> None:
        self.call("attach_disk", disk_id=disk_id, instance_id=instance_id)
        self.wait(self.disk, disk_id, "In_use")

    def detach(self, disk_id: str, instance_id: str) -> None:
        self.call("detach_disk", disk_id=disk_id, instance_id=instance_id)
        self.wait(self.disk, disk_id, "Available")

    def new_snapshot(self, disk_id: str, **fields: Any) -> str:
        snapshot_id: str = self.call("create_snapshot", disk_id=disk_id, **fields)["SnapshotId"]
        self.wait(self.snapshot, snapshot_id, "accomplished")
        return snapshot_id

    def new_image(self, system: str, *data: str, **fields: Any) -> str:
        mapping = models.CreateImageRequestDiskDeviceMapping
        mappings = [mapping(device="/dev/xvda", disk_type="system", snapshot_id=system)]
        mappings += [
            mapping(device=f"/dev/xvd{'bcdefg'[n]}", disk_type="data", snapshot_id=s) for n, s in enumerate(data)
        ]
        image_id: str = self.call("create_image", disk_device_mapping=mappings, **fields)["ImageId"]
        self.wait(self.image, image_id, "Available")
        return image_id

    def run(self, image_id: str, script: str | None = None, **fields: Any) -> str:
        if script is not None:
            fields["user_data"] = base64.b64encode(script.encode()).decode()
        values = {
            "instance_type": "ecs.c7.large",
            "v_switch_id": "vsw-local-a",
            "security_group_id": "sg-local-default",
            "system_disk": models.RunInstancesRequestSystemDisk(
                size="1", category="cloud_essd", performance_level="PL0"
            ),
            **fields,
        }
        ids: list[str] = self.call("run_instances", image_id=image_id, **values)["InstanceIdSets"]["InstanceIdSet"]
        assert len(ids) == 1
        return ids[0]

    def run_host(self, script: str = SLEEP, **fields: Any) -> str:
        instance_id = self.run("host-linux", script, **fields)
        self.wait(self.instance, instance_id, "Running")
        return instance_id

    def stop(self, instance_id: str) -> None:
        self.call("stop_instance", instance_id=instance_id, force_stop=True)
        self.wait(self.instance, instance_id, "Stopped")

    def release(self, instance_id: str) -> None:
        self.call("delete_instance", instance_id=instance_id, force=True)
        self.wait(self.instance, instance_id, "gone")

    def command(self, instance_id: str, script: str, **fields: Any) -> tuple[str, dict[str, Any]]:
        """Run it to its end; its id and its result, with the output as text."""
        fields = {"type": "RunShellScript", "content_encoding": "PlainText", "command_content": script, **fields}
        invoke_id: str = self.call("run_command", instance_id=[instance_id], **fields)["InvokeId"]
        return invoke_id, self.result(invoke_id)

    def result(self, invoke_id: str, limit: float = 30) -> dict[str, Any]:
        deadline = time.monotonic() + limit
        while True:
            answer = self.call("describe_invocation_results", invoke_id=invoke_id, content_encoding="PlainText")
            (result,) = answer["Invocation"]["InvocationResults"]["InvocationResult"]
            if result["InvocationStatus"] not in {"Pending", "Running", "Stopping"}:
                return dict(result)
            assert time.monotonic() < deadline, result
            time.sleep(0.03)

    def console(self, instance_id: str) -> str:
        output = self.call("get_instance_console_output", instance_id=instance_id)["ConsoleOutput"]
        return base64.b64decode(output).decode(errors="replace")

    def wait_console(self, instance_id: str, text: str, limit: float = 30) -> str:
        deadline = time.monotonic() + limit
        while text not in (shown := self.console(instance_id)):
            assert time.monotonic() < deadline, f"{text!r} is not on the console: {shown!r}"
            time.sleep(0.1)
        return shown


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cloud")


@pytest.fixture(scope="module")
def server(state: Path) -> Iterator[LocalCloud]:
    with LocalCloud(state, {KEY: SECRET}, Options(host_instances=True, grace=1.0)) as running:
        yield running


@pytest.fixture(scope="module")
def ecs(server: LocalCloud) -> Ecs:
    return Ecs(server.endpoint)


@pytest.fixture
def host(ecs: Ecs) -> Iterator[str]:
    """A running host instance that does nothing."""
    instance_id = ecs.run_host()
    yield instance_id
    if ecs.instance(instance_id)["Status"] != "gone":
        ecs.release(instance_id)


@pytest.fixture
def used_disk(ecs: Ecs, state: Path, host: str) -> str:
    """An available disk that was attached once, with something in its first and last block."""
    disk_id = ecs.new_disk()
    ecs.attach(disk_id, host)
    with (state / "disks" / f"{disk_id}.raw").open("r+b") as file:
        file.write(b"first")
        file.seek(1024**3 - 512)
        file.write(b"last")
    ecs.detach(disk_id, host)
    return disk_id
