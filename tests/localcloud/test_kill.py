"""kill -9 while everything is under way at once; then the state is legal, the data right, and nothing is left over.

KILLS=50 kills that often; the moments are random.
"""

import itertools
import json
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import oss2
import pytest
from alibabacloud_ecs20140526 import models
from alibabacloud_tea_openapi.exceptions import ClientException

from tests.localcloud.conftest import ZONE, Ecs
from tests.localcloud.servers import KEY, SECRET, Launcher, setting
from wavelift.localcloud.runtimes import processes
from wavelift.localcloud.runtimes.accelerator import boot_sector
from wavelift.localcloud.runtimes.qmp import Qmp
from wavelift.localcloud.volume import FOLDERS

KILLS = int(os.environ.get("KILLS", "3"))
LATER = 0.03  # seconds at most, after some of the requests were answered
MIB, GIB = 1024**2, 1024**3
SIZE = 1  # GiB
DATA = 48  # MiB on a disk, so that a copy without reflinks takes a while
BUCKET, OBJECT = "images", "disk.raw"
FINAL = {"Available", "In_use", "accomplished", "Running", "Stopped"}
LISTS = {
    "describe_disks": ("Disks", "Disk", "DiskId"),
    "describe_snapshots": ("Snapshots", "Snapshot", "SnapshotId"),
    "describe_images": ("Images", "Image", "ImageId"),
    "describe_instances": ("Instances", "Instance", "InstanceId"),
}


@pytest.fixture(params=["volume", "copies"])
def launcher(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Launcher]:
    """On a volume of its own, and as on a file system where a copy takes its time."""
    state = tmp_path / "state"
    if request.param == "copies":
        state.mkdir(mode=0o700)
        for name in FOLDERS:
            (state / name).mkdir()
    launcher = Launcher(state)
    yield launcher
    launcher.close()


def write(path: Path, number: int) -> None:
    """The same number in every MiB, so that a copy of two moments shows."""
    with path.open("r+b") as file:
        for place in range(DATA):
            os.pwrite(file.fileno(), number.to_bytes(8, "big") * 512, place * MIB)
        os.pwrite(file.fileno(), number.to_bytes(8, "big"), GIB - 8)


def read(path: Path) -> int:
    """Of one moment, whole."""
    with path.open("rb") as file:
        found = {os.pread(file.fileno(), 8, place * MIB) for place in range(DATA)} | {
            os.pread(file.fileno(), 8, GIB - 8)
        }
    (number,) = found
    return int.from_bytes(number, "big")


class Round:
    """What there is before a kill, every kind of request at once, and what must be true afterwards."""

    def __init__(self, launcher: Launcher, ecs: Ecs, oss_endpoint: str, number: int) -> None:
        self.state, self.ecs, self.number = launcher.state, ecs, number
        self.host = ecs.run_host()
        self.source = self.disk(attached=True)
        self.base = ecs.new_snapshot(self.source)
        self.machine = self._machine()
        self.spare, self.grown, self.doomed, self.leaving = (self.disk() for _ in range(4))
        ecs.attach(self.leaving, self.host)
        self.old_snapshot = ecs.new_snapshot(self.source)
        self.old_host = ecs.run_host()
        self._upload(oss_endpoint)

    def disk(self, attached: bool = False) -> str:
        name = self.ecs.new_disk(SIZE)
        write(self.path(name), self.number)
        if attached:
            self.ecs.attach(name, self.host)
        return name

    def _machine(self) -> str:
        """Two disks, not switched on."""
        image = self.ecs.new_image(self.base, self.base)
        disk = models.CreateInstanceRequestSystemDisk(size=SIZE, category="cloud_essd", performance_level="PL0")
        place = {"v_switch_id": "vsw-local-a", "security_group_id": "sg-local-default"}
        created = self.ecs.call(
            "create_instance", image_id=image, instance_type="ecs.c7.large", system_disk=disk, **place
        )
        name = str(created["InstanceId"])
        self.ecs.wait(self.ecs.instance, name, "Stopped")
        return name

    def _upload(self, endpoint: str) -> None:
        auth = oss2.AuthV4(KEY, SECRET)
        bucket = oss2.Bucket(auth, f"http://{endpoint}", BUCKET, region="cn-local", enable_crc=False)
        bucket.create_bucket()
        content = bytearray(DATA * MIB)
        for place in range(0, len(content), MIB):
            content[place : place + 4096] = self.number.to_bytes(8, "big") * 512
        bucket.put_object(OBJECT, bytes(content))

    def path(self, disk: str) -> Path:
        return self.state / "disks" / f"{disk}.raw"

    def requests(self) -> dict[str, Callable[[Ecs], dict[str, Any]]]:
        source = models.ImportImageRequestDiskDeviceMapping(ossbucket=BUCKET, ossobject=OBJECT, format="RAW")
        script = {"script": "exec sleep 600", "instance_name": f"run-{self.number}"}
        named = f"kill-{self.number}"

        def run(ecs: Ecs) -> dict[str, Any]:
            return {"InstanceId": ecs.run("host-linux", **script)}

        return {
            "snapshot": lambda ecs: ecs.call(
                "create_snapshot", disk_id=self.source, snapshot_name=named, client_token=named
            ),
            "image": lambda ecs: ecs.call("create_image", instance_id=self.machine, image_name=named),
            "import": lambda ecs: ecs.call("import_image", disk_device_mapping=[source], image_name=f"{named}-import"),
            "run": run,
            "create": lambda ecs: ecs.call(
                "create_disk",
                zone_id=ZONE,
                size=SIZE,
                disk_category="cloud_essd",
                performance_level="PL0",
                snapshot_id=self.base,
                disk_name=named,
            ),
            "attach": lambda ecs: ecs.call("attach_disk", disk_id=self.spare, instance_id=self.host),
            "detach": lambda ecs: ecs.call("detach_disk", disk_id=self.leaving, instance_id=self.host),
            "resize": lambda ecs: ecs.call("resize_disk", disk_id=self.grown, new_size=SIZE + 1),
            "delete": lambda ecs: ecs.call("delete_disk", disk_id=self.doomed),
            "delete_snapshot": lambda ecs: ecs.call("delete_snapshot", snapshot_id=self.old_snapshot, force=True),
            "delete_instance": lambda ecs: ecs.call("delete_instance", instance_id=self.old_host, force=True),
        }

    def check(self, ecs: Ecs, replies: dict[str, dict[str, Any]]) -> None:
        """`replies` are those that came."""
        self.ecs = ecs
        found = everything(ecs)
        disks, snapshots = found["describe_disks"], found["describe_snapshots"]
        self._check_snapshot(snapshots, replies)
        self._check_images(found["describe_images"], replies)
        attached = {name: disks[name]["InstanceId"] for name in (self.spare, self.leaving)}
        assert attached[self.spare] == self.host or ("attach" not in replies and not attached[self.spare])
        assert not attached[self.leaving] or ("detach" not in replies and attached[self.leaving] == self.host)
        assert disks[self.grown]["Size"] == SIZE + 1 or ("resize" not in replies and disks[self.grown]["Size"] == SIZE)
        for reply, name, there in (
            ("delete", self.doomed, disks),
            ("delete_snapshot", self.old_snapshot, snapshots),
            ("delete_instance", self.old_host, found["describe_instances"]),
        ):
            assert name not in there or reply not in replies, reply
        for disk in (self.source, self.spare, self.grown, self.leaving):
            assert read(self.path(disk)) == self.number
        for name, kept in (("create", disks), ("run", found["describe_instances"])):
            if name in replies:
                assert replies[name]["DiskId" if name == "create" else "InstanceId"] in kept
        for name, disk in disks.items():
            assert self.path(name).stat().st_size == disk["Size"] * GIB
            if disk["DiskName"] == f"kill-{self.number}":
                assert read(self.path(name)) == self.number
        self._check_what_is_there(found)

    def _check_snapshot(self, snapshots: dict[str, Any], replies: dict[str, Any]) -> None:
        """The one that was asked for is whole, or not there; asked for again, it is not made twice."""
        named = f"kill-{self.number}"
        made = [name for name, snapshot in snapshots.items() if snapshot["SnapshotName"] == named]
        assert len(made) <= 1
        if "snapshot" in replies:
            assert made == [replies["snapshot"]["SnapshotId"]]
        for name in made:
            assert read(self.state / "snapshots" / f"{name}.raw") == self.number
            assert self.requests()["snapshot"](self.ecs)["SnapshotId"] == name

    def _check_images(self, images: dict[str, Any], replies: dict[str, Any]) -> None:
        for operation in ("image", "import"):
            if operation in replies:
                assert replies[operation]["ImageId"] in images
        for image in images.values():
            for device in image["DiskDeviceMappings"]["DiskDeviceMapping"]:
                path = self.state / "snapshots" / f"{device['SnapshotId']}.raw"
                if image["ImageName"] == f"kill-{self.number}":
                    assert read(path) == self.number
                elif image["ImageName"] == f"kill-{self.number}-import":
                    assert path.stat().st_size == GIB
                    with path.open("rb") as file:
                        for place in range(DATA):
                            assert os.pread(file.fileno(), 8, place * MIB) == self.number.to_bytes(8, "big")

    def _check_what_is_there(self, found: dict[str, dict[str, Any]]) -> None:
        """Files and processes are those of the resources, no more and no fewer."""
        assert names(self.state / "disks") == {f"{name}.raw" for name in found["describe_disks"]}
        assert names(self.state / "snapshots") == {f"{name}.raw" for name in found["describe_snapshots"]}
        assert names(self.state / "instances") <= set(found["describe_instances"])
        running = {name for name, each in found["describe_instances"].items() if each["Status"] == "Running"}
        assert processes.instances_of(self.state) == running
        for name in running:
            shown = names(self.state / "instances" / name / "devices")
            assert shown == {
                f"virtio-{disk['SerialNumber']}"
                for disk in found["describe_disks"].values()
                if disk["InstanceId"] == name and disk["Type"] == "data"
            }


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def everything(ecs: Ecs) -> dict[str, dict[str, Any]]:
    """All there is, by action and id, when nothing is under way any more."""
    deadline = time.monotonic() + 30
    while True:
        found: dict[str, dict[str, Any]] = {}
        for action, (outer, inner, key) in LISTS.items():
            fields = {"status": "ALL"} if action == "describe_images" else {}
            found[action] = {}
            for page in itertools.count(1):
                shown = ecs.call(action, page_size=100, page_number=page, **fields)[outer][inner]
                found[action] |= {each[key]: each for each in shown}
                if len(shown) < 100:
                    break
        states = {name: each["Status"] for kind in found.values() for name, each in kind.items()}
        moving = {name: status for name, status in states.items() if status not in FINAL}
        if not moving:
            return found
        assert time.monotonic() < deadline, moving
        time.sleep(0.03)


def ask_everything(ecs: Ecs, requests: dict[str, Callable[[Ecs], Any]]) -> dict[str, Future[Any]]:
    begun = threading.Barrier(len(requests) + 1)
    pool = ThreadPoolExecutor(len(requests))

    def ask(request: Callable[[Ecs], Any]) -> Any:
        mine = Ecs(ecs.endpoint, KEY, SECRET)
        begun.wait()
        return request(mine)

    asked = {name: pool.submit(ask, request) for name, request in requests.items()}
    begun.wait()
    pool.shutdown(wait=False)
    return asked


def wait_for(asked: dict[str, Future[Any]], answered: int) -> None:
    deadline = time.monotonic() + 30
    while sum(future.done() for future in asked.values()) < answered:
        assert time.monotonic() < deadline, [name for name, future in asked.items() if not future.done()]
        time.sleep(0.001)


def test_killed_while_everything_is_under_way(launcher: Launcher) -> None:
    seed = random.randrange(10**6)
    moments = random.Random(seed)
    server, ecs = launcher.start()
    for number in range(1, KILLS + 1):
        kill = Round(launcher, ecs, server.hello["oss_endpoint"], number)
        asked = ask_everything(ecs, kill.requests())
        answered, more = moments.randint(0, len(asked)), moments.uniform(0, LATER)
        wait_for(asked, answered)
        time.sleep(more)
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
        failed = {name: future.exception() for name, future in asked.items()}
        refused = {name: error for name, error in failed.items() if isinstance(error, ClientException)}
        assert not refused, refused
        replies = {name: future.result() for name, future in asked.items() if failed[name] is None}
        with closing(sqlite3.connect(launcher.state / "state.sqlite")) as database:
            assert database.execute("PRAGMA quick_check").fetchone() == ("ok",)
        server, ecs = launcher.start()
        try:
            kill.check(ecs, replies)
        except AssertionError as error:
            what = json.dumps({"seed": seed, "answered": answered, "later": more, "replies": sorted(replies)})
            raise AssertionError(f"killed at {what}") from error
        for name in (kill.machine, kill.host):
            ecs.release(name)
    assert server.end(signal.SIGTERM) == 0
    assert not processes.instances_of(launcher.state)
    assert not (launcher.state / "volume").is_mount()


def test_killed_while_machines_begin_and_disks_are_plugged_in(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path / "state")
    try:
        _kill_among_machines(launcher)
    finally:
        launcher.close()


def _kill_among_machines(launcher: Launcher) -> None:
    server, ecs = launcher.start()
    host, source = ecs.run_host(), ecs.new_disk(SIZE)
    ecs.attach(source, host)
    with (launcher.state / "disks" / f"{source}.raw").open("r+b") as file:
        file.write(boot_sector("machine speaks"))
    image = ecs.new_image(ecs.new_snapshot(source))
    machine, rebooted = ecs.run(image), ecs.run(image)
    spare, other = ecs.new_disk(SIZE), ecs.new_disk(SIZE)
    for name in (machine, rebooted):
        ecs.wait(ecs.instance, name, "Running")
    requests: dict[str, Callable[[Ecs], Any]] = {
        "run": lambda ecs: ecs.run(image),
        "attach": lambda ecs: ecs.call("attach_disk", disk_id=spare, instance_id=machine),
        "attach_too": lambda ecs: ecs.call("attach_disk", disk_id=other, instance_id=machine),
        "reboot": lambda ecs: ecs.call("reboot_instance", instance_id=rebooted, force_stop=True),
    }
    seed = random.randrange(10**6)
    moments = random.Random(seed)
    asked = ask_everything(ecs, requests)
    wait_for(asked, moments.randint(0, len(asked)))
    time.sleep(moments.uniform(0, 10 * LATER))
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    replied = {name for name, future in asked.items() if future.exception() is None}
    server, ecs = launcher.start()
    found = everything(ecs)
    instances, disks = found["describe_instances"], found["describe_disks"]
    assert {each["Status"] for each in instances.values()} == {"Running"}, seed
    assert "run" not in replied or asked["run"].result() in instances, seed
    assert processes.instances_of(launcher.state) == set(instances), seed
    for request, disk in (("attach", spare), ("attach_too", other)):
        assert disks[disk]["InstanceId"] == machine or request not in replied, seed
        if not disks[disk]["InstanceId"]:
            ecs.attach(disk, machine)
    wanted = {f"disk-{disk.removeprefix('d-')}" for disk in (spare, other)}
    with Qmp(setting(launcher.state, "sockets") / f"{machine}.sock") as qmp:
        assert wanted <= {entry["name"] for entry in qmp.execute("qom-list", {"path": "/machine/peripheral"})}, seed
    for name in instances:
        ecs.release(name)
    assert not processes.instances_of(launcher.state), seed
    assert server.end(signal.SIGTERM) == 0
