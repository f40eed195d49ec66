"""Random sequences of requests, kills and restarts, held against a model that is too simple to be wrong.

STATE_MACHINE_EXAMPLES=500 makes a long run of it.
"""

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wavelift.localcloud.entities import GIB, Disk, Entity, Image, Instance, Moving, Snapshot
from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import Options
from wavelift.localcloud.model.disks import DATA_DISKS, DiskOrder
from wavelift.localcloud.model.images import ImageOrder, Mapping
from wavelift.localcloud.model.orders import InstanceOrder, OrderedDisk
from wavelift.localcloud.model.snapshots import SnapshotOrder
from wavelift.localcloud.runtimes import processes
from wavelift.localcloud.states import PASSAGES, DiskStatus, ImageStatus, InstanceStatus, SnapshotStatus
from wavelift.localcloud.volume import Volume

LONG = "STATE_MACHINE_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("STATE_MACHINE_EXAMPLES", "13"))
KINDS: tuple[type[Moving], ...] = (Disk, Snapshot, Image, Instance)
PLACES = (0, GIB // 2, GIB - 8)
ZONES = {"cn-local-a": "vsw-local-a", "cn-local-b": "vsw-local-b"}
SMALL = OrderedDisk(category="cloud_essd", level="PL0", size=1)
WAIT = 20.0

T = TypeVar("T")


@dataclass
class MyDisk:
    size: int
    zone: str
    content: int = 0
    instance: str = ""
    used: bool = False
    source: str = ""
    kept: bool = True  # when its instance goes
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class MySnapshot:
    disk: str
    size: int
    content: int


@dataclass
class MyInstance:
    zone: str
    host: bool
    running: bool


@pytest.fixture(scope="module", autouse=True)
def instant() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for status, passage in PASSAGES.items():
            patch.setitem(PASSAGES, status, replace(passage, fast=0.001))
        yield


def write(path: Path, number: int) -> None:
    with path.open("r+b") as file:
        for place in PLACES:
            os.pwrite(file.fileno(), number.to_bytes(8, "big"), place)


def read(path: Path) -> int:
    with path.open("rb") as file:
        (number,) = {int.from_bytes(os.pread(file.fileno(), 8, place), "big") for place in PLACES}
    return number


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def eventually(look: Callable[[], T], expected: T) -> None:
    deadline = time.monotonic() + WAIT
    while (found := look()) != expected:
        assert time.monotonic() < deadline, (found, expected)
        time.sleep(0.001)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="machine-")
        self.state = Path(self.folder.name).resolve() / "state"
        self.disks: dict[str, MyDisk] = {}
        self.snapshots: dict[str, MySnapshot] = {}
        self.images: dict[str, list[str]] = {}
        self.instances: dict[str, MyInstance] = {}
        self.last = 0
        self.began()

    def began(self) -> None:
        self.cloud = Cloud(self.state, Options(host_instances=True, grace=0.2))
        self.cloud.start()
        self.settle()

    def teardown(self) -> None:
        try:
            self.cloud.stop()
        finally:
            Volume(self.state).close()
        assert not [name for name in self.instances if processes.marked(name)]
        self.folder.cleanup()

    # How requests are made

    def settle(self) -> None:
        """Every operation under way has ended."""
        deadline = time.monotonic() + WAIT
        while busy := [entity.id for kind in KINDS for entity in self.all(kind) if entity.busy is not None]:
            assert time.monotonic() < deadline, busy
            time.sleep(0.001)

    def all(self, kind: type[Any]) -> list[Any]:
        with self.cloud.store.transaction() as tx:
            return tx.look(kind)

    def request(self, kill: bool, refused: str | None, call: Callable[[], T]) -> T | None:
        """What the model says, `refused` with a code or not, is what happens; afterwards the cloud may be killed."""
        try:
            result = call()
        except ApiError as error:
            assert error.code == refused, error
            return None
        assert refused is None, f"{refused} was expected"
        if kill:
            self.kill()
        self.settle()
        return result

    def kill(self) -> None:
        """Nothing is ended or undone: work that is not begun yet never happens, instances go on."""
        cloud = self.cloud
        cloud._stopping.set()
        cloud._watch.join()
        cloud.engine.stop()
        cloud.store.close()
        cloud.objects.close()
        cloud._claim.close()
        self.began()

    @staticmethod
    def pick(data: Any, known: Sequence[str], wanted: Callable[[str], bool] = lambda name: True) -> str | None:
        """By place: names are random, and a failing sequence must fail again."""
        fitting = [name for name in known if wanted(name)]
        return fitting[data.draw(st.integers(0, len(fitting) - 1))] if fitting else None

    def path(self, disk: str) -> Path:
        return self.state / "disks" / f"{disk}.raw"

    def attached(self, instance: str) -> list[str]:
        return [name for name, disk in self.disks.items() if disk.instance == instance]

    def learn_disks(self, instance: str) -> None:
        """Those that came with an instance."""
        for disk in self.all(Disk):
            if disk.instance == instance and disk.id not in self.disks:
                source = self.snapshots.get(disk.source_snapshot)
                self.disks[disk.id] = MyDisk(
                    size=disk.size,
                    zone=disk.zone,
                    content=source.content if source else 0,
                    instance=instance,
                    used=True,
                    source=disk.source_snapshot,
                    kept=False,
                )

    # Rules

    @initialize()
    def an_instance_with_a_disk(self) -> None:
        order = InstanceOrder(
            image="host-linux",
            type="ecs.c7.large",
            vswitch="vsw-local-a",
            zone=None,
            groups=["sg-local-default"],
            user_data="exec sleep 600",
            system_disk=SMALL,
        )
        (host,) = self.request(False, None, lambda: self.cloud.instances.run(order, None)) or [""]
        self.instances[host] = MyInstance("cn-local-a", host=True, running=True)
        self.learn_disks(host)

    @rule(data=st.data(), size=st.integers(1, 3), zone=st.sampled_from(sorted(ZONES)), kill=st.booleans())
    def create_disk(self, data: Any, size: int, zone: str, kill: bool) -> None:
        source = self.pick(data, [*self.snapshots]) if data.draw(st.booleans()) else None
        refused = "InvalidDiskSize.TooSmall" if source and size < self.snapshots[source].size else None
        order = DiskOrder(zone=zone, category="cloud_essd", level="PL0", size=size, snapshot=source)
        name = self.request(kill, refused, lambda: self.cloud.disks.create(order, None))
        if name:
            content = self.snapshots[source].content if source else 0
            self.disks[name] = MyDisk(size, zone, content, source=source or "")

    @precondition(lambda self: self.disks)
    @rule(data=st.data())
    def write_to_a_disk(self, data: Any) -> None:
        name = self.pick(data, [*self.disks])
        assert name
        self.last += 1
        write(self.path(name), self.last)
        self.disks[name].content = self.last

    @precondition(lambda self: self.disks and self.instances)
    @rule(data=st.data(), kill=st.booleans())
    def attach_disk(self, data: Any, kill: bool) -> None:
        name, instance = self.pick(data, [*self.disks]), self.pick(data, [*self.instances])
        assert name and instance
        disk = self.disks[name]
        refused = None
        if disk.instance:
            refused = "IncorrectDiskStatus"
        elif disk.zone != self.instances[instance].zone:
            refused = "ResourcesNotInSameZone"
        elif self.data_disks(instance) >= DATA_DISKS:
            refused = "InstanceDiskLimitExceeded"
        self.request(kill, refused, lambda: self.attach(name, instance))
        if refused is None:
            disk.instance, disk.used, disk.kept = instance, True, True

    def attach(self, disk: str, instance: str) -> None:
        self.cloud.disks.attach(disk, instance, bootable=False, credentials=False, delete_with_instance=False)

    def data_disks(self, instance: str) -> int:
        return sum(disk.instance == instance and disk.type == "data" for disk in self.all(Disk))

    @precondition(lambda self: any(disk.instance for disk in self.disks.values()))
    @rule(data=st.data(), kill=st.booleans())
    def detach_disk(self, data: Any, kill: bool) -> None:
        name = self.pick(data, [*self.disks], lambda name: bool(self.disks[name].instance))
        assert name
        instance = self.disks[name].instance
        system = next(disk.type == "system" for disk in self.all(Disk) if disk.id == name)
        refused = "IncorrectInstanceStatus" if system and self.instances[instance].running else None
        self.request(kill, refused, lambda: self.cloud.disks.detach(name, instance))
        if refused is None:
            self.disks[name].instance = ""

    @precondition(lambda self: self.disks)
    @rule(data=st.data(), more=st.integers(0, 2), kill=st.booleans())
    def resize_disk(self, data: Any, more: int, kill: bool) -> None:
        name = self.pick(data, [*self.disks])
        assert name
        size = self.disks[name].size + more
        refused = "InvalidDiskSize.TooSmall" if more == 0 else None
        self.request(kill, refused, lambda: self.cloud.disk_changes.resize(name, size, False, None))
        self.disks[name].size = size

    @precondition(lambda self: self.disks)
    @rule(data=st.data(), kill=st.booleans())
    def delete_disk(self, data: Any, kill: bool) -> None:
        name = self.pick(data, [*self.disks])
        assert name
        refused = "IncorrectDiskStatus" if self.disks[name].instance else None
        self.request(kill, refused, lambda: self.cloud.disks.delete(name))
        if refused is None:
            del self.disks[name]

    @precondition(lambda self: self.disks)
    @rule(data=st.data(), kill=st.booleans())
    def create_snapshot(self, data: Any, kill: bool) -> None:
        name = self.pick(data, [*self.disks])
        assert name
        disk = self.disks[name]
        refused = None if disk.used else "IncorrectDiskStatus.NeverAttached"
        made = self.request(kill, refused, lambda: self.cloud.snapshots.create(name, SnapshotOrder(), None))
        if made:
            self.snapshots[made] = MySnapshot(name, disk.size, disk.content)

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data(), kill=st.booleans())
    def copy_snapshot(self, data: Any, kill: bool) -> None:
        source = self.pick(data, [*self.snapshots])
        assert source
        made = self.request(kill, None, lambda: self.cloud.snapshots.duplicate(source, SnapshotOrder(), None))
        assert made
        self.snapshots[made] = replace(self.snapshots[source], disk="")

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data(), force=st.booleans(), kill=st.booleans())
    def delete_snapshot(self, data: Any, force: bool, kill: bool) -> None:
        name = self.pick(data, [*self.snapshots])
        assert name
        refused = None
        if any(name in used for used in self.images.values()):
            refused = "SnapshotCreatedImage"
        elif any(disk.source == name for disk in self.disks.values()) and not force:
            refused = "SnapshotCreatedDisk"
        self.request(kill, refused, lambda: self.cloud.snapshots.delete(name, force))
        if refused is None:
            del self.snapshots[name]

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data(), kill=st.booleans())
    def reset_disk(self, data: Any, kill: bool) -> None:
        def fits(name: str) -> bool:
            disk = self.disks.get(self.snapshots[name].disk)
            return disk is not None and (not disk.instance or not self.instances[disk.instance].running)

        snapshot = self.pick(data, [*self.snapshots], fits)
        if snapshot:
            name = self.snapshots[snapshot].disk
            self.request(kill, None, lambda: self.cloud.disk_changes.reset(name, snapshot, False))
            self.disks[name].content = self.snapshots[snapshot].content

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data(), kill=st.booleans())
    def image_of_snapshots(self, data: Any, kill: bool) -> None:
        used = [self.pick(data, [*self.snapshots]) for _ in range(data.draw(st.integers(1, 2)))]
        mappings = [
            Mapping(name, f"/dev/xvd{'ab'[place]}", "data" if place else "system")
            for place, name in enumerate(used)
            if name
        ]
        image = self.request(kill, None, lambda: self.cloud.images.create(ImageOrder(mappings=mappings), None))
        assert image
        self.images[image] = [mapping.snapshot for mapping in mappings]

    @precondition(lambda self: any(not each.host for each in self.instances.values()))
    @rule(data=st.data(), kill=st.booleans())
    def image_of_an_instance(self, data: Any, kill: bool) -> None:
        """All its disks at one moment."""
        instance = self.pick(data, [*self.instances], lambda name: not self.instances[name].host)
        assert instance
        systems = [disk for disk in self.all(Disk) if disk.instance == instance and disk.type == "system"]
        refused = None if systems else "OperationDenied"
        image = self.request(kill, refused, lambda: self.cloud.images.create(ImageOrder(instance=instance), None))
        if image:
            (made,) = [each for each in self.all(Image) if each.id == image]
            self.images[image] = [device.snapshot for device in made.devices]
            taken = {each.disk: each.id for each in self.all(Snapshot) if each.id in self.images[image]}
            assert set(taken) == set(self.attached(instance))
            for disk, snapshot in taken.items():
                self.snapshots[snapshot] = MySnapshot(disk, self.disks[disk].size, self.disks[disk].content)

    @precondition(lambda self: self.images)
    @rule(data=st.data(), kill=st.booleans())
    def delete_image(self, data: Any, kill: bool) -> None:
        name = self.pick(data, [*self.images])
        assert name
        self.request(kill, None, lambda: self.cloud.images.delete(name, True, False))
        del self.images[name]

    @precondition(lambda self: self.images)
    @rule(data=st.data(), zone=st.sampled_from(sorted(ZONES)), kill=st.booleans())
    def create_instance(self, data: Any, zone: str, kill: bool) -> None:
        """A machine that is not switched on."""
        image = self.pick(data, [*self.images])
        assert image
        sizes = [self.snapshots[name].size for name in self.images[image]]
        order = InstanceOrder(
            image=image,
            type="ecs.c7.large",
            vswitch=ZONES[zone],
            zone=None,
            groups=["sg-local-default"],
            starts=False,
            system_disk=replace(SMALL, size=max(sizes)),
        )
        (made,) = self.request(kill, None, lambda: self.cloud.instances.run(order, None)) or [""]
        self.instances[made] = MyInstance(zone, host=False, running=False)
        self.learn_disks(made)

    @precondition(lambda self: any(each.host for each in self.instances.values()))
    @rule(data=st.data(), kill=st.booleans())
    def start_or_stop_a_host(self, data: Any, kill: bool) -> None:
        name = self.pick(data, [*self.instances], lambda name: self.instances[name].host)
        assert name
        instance = self.instances[name]
        if instance.running:
            self.request(kill, None, lambda: self.cloud.instances.stop([name], False, False))
        else:
            systems = [disk for disk in self.all(Disk) if disk.instance == name and disk.type == "system"]
            refused = None if systems else "OperationDenied"
            self.request(kill, refused, lambda: self.cloud.instances.start([name], False))
            if refused:
                return
        instance.running = not instance.running

    @precondition(lambda self: self.instances)
    @rule(data=st.data(), force=st.booleans(), kill=st.booleans())
    def delete_instance(self, data: Any, force: bool, kill: bool) -> None:
        name = self.pick(data, [*self.instances])
        assert name
        refused = "IncorrectInstanceStatus" if self.instances[name].running and not force else None
        self.request(kill, refused, lambda: self.cloud.instances.delete([name], force, False))
        if refused:
            return
        del self.instances[name]
        for disk_name in self.attached(name):
            if self.disks[disk_name].kept:
                self.disks[disk_name].instance = ""
            else:
                del self.disks[disk_name]

    @precondition(lambda self: self.instances and len(self.disks) < DATA_DISKS)
    @rule(data=st.data())
    def attach_as_many_as_there_may_be(self, data: Any) -> None:
        instance = self.pick(data, [*self.instances])
        assert instance
        zone = self.instances[instance].zone
        order = DiskOrder(zone=zone, category="cloud_essd", level="PL0", size=1)
        more = DATA_DISKS - self.data_disks(instance)
        made = [self.cloud.disks.create(order, None) for _ in range(more + 1)]
        self.settle()
        for name in made[:-1]:
            self.attach(name, instance)
        self.request(False, "InstanceDiskLimitExceeded", lambda: self.attach(made[-1], instance))
        self.settle()
        for name in made[:-1]:
            self.cloud.disks.detach(name, instance)
        self.settle()
        for name in made:
            self.cloud.disks.delete(name)

    @precondition(lambda self: self.disks)
    @rule(data=st.data(), value=st.sampled_from(["", "1", "2"]))
    def tag_a_disk(self, data: Any, value: str) -> None:
        name = self.pick(data, [*self.disks])
        assert name
        if value:
            self.cloud.tags.add("disk", [name], {"key": value})
            self.disks[name].tags = {"key": value}
        else:
            self.cloud.tags.remove("disk", [name], [], True)
            self.disks[name].tags = {}

    @rule()
    def kill_it_now(self) -> None:
        self.kill()

    # What is always true

    @invariant()
    def disks_are_as_they_should_be(self) -> None:
        found = {disk.id: disk for disk in self.all(Disk)}
        assert set(found) == set(self.disks)
        for name, disk in found.items():
            mine = self.disks[name]
            assert disk.status is (DiskStatus.IN_USE if mine.instance else DiskStatus.AVAILABLE)
            assert (disk.instance, disk.size, disk.tags) == (mine.instance, mine.size, mine.tags)
            assert bool(disk.device) == bool(mine.instance) and disk.ever_attached == mine.used
            assert self.path(name).stat().st_size == mine.size * GIB
            assert read(self.path(name)) == mine.content
        for instance in self.instances:
            devices = [disk.device for disk in found.values() if disk.instance == instance]
            assert len(set(devices)) == len(devices) <= DATA_DISKS + 1

    @invariant()
    def snapshots_hold_their_moment(self) -> None:
        found = {snapshot.id: snapshot for snapshot in self.all(Snapshot)}
        assert set(found) == set(self.snapshots)
        for name, snapshot in found.items():
            mine = self.snapshots[name]
            assert snapshot.status is SnapshotStatus.ACCOMPLISHED
            path = self.state / "snapshots" / f"{name}.raw"
            assert (read(path), path.stat().st_size) == (mine.content, mine.size * GIB)

    @invariant()
    def images_have_their_snapshots(self) -> None:
        found = {image.id: image for image in self.all(Image) if image.owner == "self"}
        assert {name: [device.snapshot for device in image.devices] for name, image in found.items()} == self.images
        assert all(image.status is ImageStatus.AVAILABLE for image in found.values())
        assert all(name in self.snapshots for used in self.images.values() for name in used)

    @invariant()
    def instances_run_or_do_not(self) -> None:
        found = {instance.id: instance.status for instance in self.all(Instance)}
        expected = {True: InstanceStatus.RUNNING, False: InstanceStatus.STOPPED}
        assert found == {name: expected[mine.running] for name, mine in self.instances.items()}
        running = {name for name, mine in self.instances.items() if mine.running}
        # One that is about to become another program (exec) has no environment for a moment.
        eventually(lambda: processes.instances_of(self.state), running)
        for name in running:
            shown = names(self.state / "instances" / name / "devices")
            data = {disk.serial for disk in self.all(Disk) if disk.instance == name and disk.type == "data"}
            assert shown == {f"virtio-{serial}" for serial in data}

    @invariant()
    def every_file_belongs_to_something(self) -> None:
        """Files go after the request that takes their owner away is answered."""
        expected = {
            "disks": {f"{name}.raw" for name in self.disks},
            "snapshots": {f"{name}.raw" for name in self.snapshots},
        }
        eventually(lambda: {name: names(self.state / name) for name in expected}, expected)
        eventually(lambda: names(self.state / "instances") - set(self.instances), set())

    @invariant()
    def what_is_looked_at_is_what_is_stored(self) -> None:
        with closing(sqlite3.connect(self.state / "state.sqlite")) as database:
            kinds: tuple[type[Entity], ...] = KINDS
            for kind in kinds:
                rows = database.execute("SELECT body FROM entity WHERE kind = ? ORDER BY position", (kind.kind,))
                assert [entity.model_dump_json() for entity in self.all(kind)] == [body for (body,) in rows]


Machine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    # To make a sequence shorter takes minutes.
    phases=[phase for phase in Phase if phase is not Phase.shrink or LONG],
)
TestStateMachine = Machine.TestCase
