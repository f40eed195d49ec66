"""Tasks seen from outside: listed, cancelled, and their qemu-img stopped in the middle of its work."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oss2
import pytest
from alibabacloud_ecs20140526 import models

from tests.localcloud.conftest import REGION, Ecs
from tests.localcloud.servers import KEY, SECRET, Launcher
from wavelift.localcloud.runtimes.processes import start_ticks

BUCKET, KEYS = "images", {"raw": "disk.raw", "slow": "slow.qcow2"}
SIZE = 64 * 1024**2
# In front of the real one; while its folder holds the file `slowly` a conversion takes far longer than to find it.
BRAKE = """#!/bin/bash
[ "$1" = convert ] && [ -e "$(dirname "$0")/slowly" ] && set -- convert -r 1M "${@:2}"
exec -a qemu-img REAL "$@"
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One that is imported at once, and one that qemu-img has something to do with: small, but not zeros."""
    folder = tmp_path_factory.mktemp("files")
    small, raw, slow = folder / "small", folder / "raw", folder / "slow"
    small.write_bytes(b"first")
    with raw.open("wb") as file:
        for number in range(SIZE // 1024**2):
            file.write(bytes([1 + number % 255]) * 1024**2)
    command = ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", raw, slow]
    subprocess.run(command, check=True)
    raw.unlink()
    return {"raw": small, "slow": slow}


class Cloud:
    """A cloud in a process of its own, with the files in a bucket."""

    def __init__(self, launcher: Launcher, files: dict[str, Path], tools: Path) -> None:
        self.launcher = launcher
        self.slowly = tools / "slowly"
        self.server, self.ecs = launcher.start()
        endpoint = self.server.hello["oss_endpoint"]
        bucket = oss2.Bucket(oss2.AuthV4(KEY, SECRET), f"http://{endpoint}", BUCKET, region=REGION, enable_crc=False)
        bucket.create_bucket()
        for name, path in files.items():
            bucket.put_object_from_file(KEYS[name], str(path))

    def halted(self, **fields: Any) -> tuple[int, str, str]:
        """The qemu-img that converts, stopped in the middle of it, and the image and the task it works for."""
        self.slowly.touch()
        image, task = self.order("slow", **fields)
        child = self._stopped()
        self.slowly.unlink()
        return child, image, task

    def order(self, name: str, **fields: Any) -> tuple[str, str]:
        source = models.ImportImageRequestDiskDeviceMapping(ossbucket=BUCKET, ossobject=KEYS[name])
        answer = self.ecs.call("import_image", disk_device_mapping=[source], **fields)
        return answer["ImageId"], answer["TaskId"]

    def _stopped(self) -> int:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit() and self._converts(entry):
                    os.kill(int(entry.name), signal.SIGSTOP)
                    return int(entry.name)
        raise AssertionError("no qemu-img was seen")

    def _converts(self, process: Path) -> bool:
        try:
            command = (process / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return command.startswith(b"qemu-img\0convert") and os.fsencode(self.launcher.state) in command


@pytest.fixture
def cloud(tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    real = shutil.which("qemu-img")
    assert real
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "qemu-img").write_text(BRAKE.replace("REAL", real))
    (tools / "qemu-img").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    launcher = Launcher(tmp_path / "state")
    yield Cloud(launcher, files, tools)
    launcher.close()


def attribute(ecs: Ecs, task_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = ecs.call("describe_task_attribute", task_id=task_id)
    return {**answer, "Status": answer["TaskStatus"]}


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while start_ticks(pid) is not None:
        assert time.monotonic() < deadline, "qemu-img is still there"
        time.sleep(0.01)


def check_content(cloud: Cloud, image_id: str) -> None:
    device = cloud.ecs.image(image_id)["DiskDeviceMappings"]["DiskDeviceMapping"][0]
    with (cloud.launcher.state / "snapshots" / f"{device['SnapshotId']}.raw").open("rb") as file:
        for number in (0, 40, SIZE // 1024**2 - 1):
            file.seek(number * 1024**2)
            assert file.read(1024**2) == bytes([1 + number % 255]) * 1024**2


def test_listed(cloud: Cloud) -> None:
    ecs = cloud.ecs
    image, first = cloud.order("raw")
    ecs.wait(ecs.image, image, "Available")
    _, second = cloud.order("raw")
    ecs.wait(lambda t: attribute(ecs, t), second, "Finished")
    exported = ecs.call("export_image", image_id=image, ossbucket=BUCKET, image_format="qcow2")["TaskId"]
    ecs.wait(lambda t: attribute(ecs, t), exported, "Finished")
    disk = ecs.new_disk(20, disk_category="cloud_ssd", performance_level=None)
    changed = ecs.call("modify_disk_spec", disk_id=disk, disk_category="cloud_essd")["TaskId"]

    def find(**fields: Any) -> list[str]:
        return [task["TaskId"] for task in ecs.call("describe_tasks", **fields)["TaskSet"]["Task"]]

    assert find() == [first, second, exported, changed]
    assert find(task_action="ExportImage") == [exported]
    assert find(task_ids=f"{second},{changed},t-none") == [second, changed]
    assert find(resource_ids=[image]) == [first, exported]
    assert find(task_status="Finished", page_size=2, page_number=2) == [exported, changed]
    assert find(task_status="Processing") == []
    assert find(end_time="2020-01-01T00:00:00Z") == [] == find(start_time="2990-01-01T00:00Z")
    (task,) = ecs.call("describe_tasks", task_ids=first)["TaskSet"]["Task"]
    assert (task["TaskAction"], task["ResourceId"], task["SupportCancel"]) == ("ImportImage", image, "false")
    for action in ("describe_task_attribute", "cancel_task"):
        with ecs.refused("InvalidTaskId.NotFound", 400):
            ecs.call(action, task_id="t-none")
    with ecs.refused("InvalidTaskId.IncorrectTaskStatus", 403):
        ecs.call("cancel_task", task_id=first)
    with ecs.refused("InvalidTaskId.TaskActionNotSupport", 403):
        ecs.call("cancel_task", task_id=changed)
    with ecs.refused("InvalidStartTime.Malformed", 400):
        find(start_time="yesterday")


def test_killed_in_the_middle_and_taken_up_again(cloud: Cloud) -> None:
    child, image, task = cloud.halted(image_name="slow")
    cloud.server.end(signal.SIGKILL)
    wait_gone(child)
    _, ecs = cloud.launcher.start()
    cloud.ecs = ecs
    ecs.wait(ecs.image, image, "Available")
    assert attribute(ecs, task)["Status"] == "Finished"
    check_content(cloud, image)


def test_a_polite_end_does_not_wait_for_it(cloud: Cloud) -> None:
    child, image, _ = cloud.halted()
    assert cloud.server.end(signal.SIGTERM) == 0
    wait_gone(child)
    _, ecs = cloud.launcher.start()
    cloud.ecs = ecs
    ecs.wait(ecs.image, image, "Available")
    check_content(cloud, image)


def test_cancelled_in_the_middle(cloud: Cloud) -> None:
    ecs = cloud.ecs
    child, image, task = cloud.halted()
    (listed,) = ecs.call("describe_tasks", task_ids=task, task_status="Processing")["TaskSet"]["Task"]
    assert listed["SupportCancel"] == "true"
    ecs.call("cancel_task", task_id=task)
    wait_gone(child)
    assert ecs.image(image)["Status"] == "CreateFailed" and attribute(ecs, task)["Status"] == "Cancelled"
    deadline = time.monotonic() + 10
    while list((cloud.launcher.state / "snapshots").iterdir()):
        assert time.monotonic() < deadline, "something is left of it"
        time.sleep(0.02)
    ecs.call("delete_image", image_id=image)
    again, _ = cloud.order("slow")
    ecs.wait(ecs.image, again, "Available")
