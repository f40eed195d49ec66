"""What a zone does not have: each reason, and what comes nearest; sizes; snapshots that may go."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage_backends.alibaba import stock
from storage_backends.alibaba.backend import AlibabaBackend
from storage_backends.alibaba.stock import InstanceType, Sizes, nearest_categories, nearest_types
from storage_backends.base import InstanceSpec, Kind, Labels, Resource, Role, State, VolumeSpec
from storage_backends.errors import BackendError, InvalidRequest, QuotaExceeded
from tests.localcloud.conftest import KEY, SECRET, Ecs
from tests.storage_backends.conftest import SMALL, World, gone, ready
from wavelift.localcloud.entities import Disk, Snapshot
from wavelift.localcloud.faults.rules import Rule
from wavelift.localcloud.model.context import Options
from wavelift.localcloud.server import LocalCloud
from wavelift.localcloud.states import DiskStatus, SnapshotStatus

Run = Callable[..., Labels]
WITHHELD = {
    ("cn-local-a", "cloud_essd"),
    ("cn-local-a", "cloud_auto"),
    ("cn-local-a", "ecs.g7.large"),
    ("cn-local-b", "ecs.c7.large"),
}
TARGET = InstanceSpec("", "ecs.g7.large", "vsw-local-a", "sg-local-default", "cloud_essd", 40)


@pytest.fixture(scope="module")
def scarce(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A cloud with one zone that lacks something."""
    state: Path = tmp_path_factory.mktemp("scarce")
    options = Options(host_instances=True, memory=1024, withheld=frozenset(WITHHELD))
    with LocalCloud(state, {KEY: SECRET}, options) as cloud:
        extra = {**world.extra, "endpoint": cloud.endpoint, "gateway_instance_type": "ecs.c7.xlarge"}
        yield World(cloud, state, Ecs(cloud.endpoint), extra)


def test_what_the_zone_does_not_have_is_named_with_what_is_nearest(scarce: World) -> None:
    reasons = scarce.backend().check_target(TARGET, [VolumeSpec(40, "cloud_auto")])
    assert reasons == [
        "Instance type ecs.g7.large cannot be had in zone cn-local-a now; nearest there: ecs.c7.large, ecs.c7.xlarge, "
        "ecs.g7.xlarge; zones that have it: cn-local-b.",
        "Disk category cloud_auto cannot be had for volumes in zone cn-local-a; nearest there: cloud_ssd, "
        "cloud_essd_entry, cloud_efficiency, cloud; zones that have it: cn-local-b.",
        "Disk category cloud_essd cannot be had for volumes in zone cn-local-a; nearest there: cloud_ssd, "
        "cloud_essd_entry, cloud_efficiency, cloud; zones that have it: cn-local-b.",
    ]


def test_what_was_named_as_nearest_fits(scarce: World) -> None:
    fitting = dataclasses.replace(TARGET, instance_type="ecs.c7.large", disk_category="cloud_ssd")
    assert scarce.backend().check_target(fitting, [VolumeSpec(40, "cloud_ssd")]) == []
    other = dataclasses.replace(TARGET, vswitch="vsw-local-b")
    assert scarce.backend(zone="cn-local-b").check_target(other) == []


def test_the_cloud_refuses_what_the_reasons_say(scarce: World, run: Run) -> None:
    backend = scarce.backend()
    with pytest.raises(InvalidRequest, match=r"InvalidDataDiskCategory\.NotSupported"):
        backend.create_volume(run(Role.REPLICA, "x"), SMALL)
    with pytest.raises(QuotaExceeded, match=r"OperationDenied\.NoStock"):
        backend.run_instance(
            run(Role.TARGET),
            InstanceSpec("host-linux", "ecs.g7.large", "vsw-local-a", "sg-local-default", "cloud_ssd", 20),
        )
    with pytest.raises(BackendError, match=r"InvalidSystemDiskCategory\.NotSupported"):
        backend.run_instance(
            run(Role.TARGET),
            InstanceSpec("host-linux", "ecs.c7.large", "vsw-local-a", "sg-local-default", "cloud_auto", 20),
        )


def test_a_gateway_that_cannot_be_had_is_a_reason_too(scarce: World) -> None:
    backend = scarce.backend(zone="cn-local-b", gateway_instance_type="ecs.c7.large")
    (reason,) = backend.check_target(dataclasses.replace(TARGET, vswitch="vsw-local-b"))
    assert reason.startswith(
        "Instance type ecs.c7.large cannot be had in zone cn-local-b now; nearest there: ecs.g7.large"
    )


def test_a_size_beyond_what_the_category_has_is_a_reason(backend: AlibabaBackend) -> None:
    spec = dataclasses.replace(TARGET, system_gib=4096)
    reasons = backend.check_target(spec, [VolumeSpec(70_000, "cloud_essd", "PL1"), VolumeSpec(1, "cloud_essd", "PL3")])
    assert [reason.partition(";")[0] for reason in reasons] == [
        "A volume of 70000 GiB is more than the 65536 GiB of cloud_essd in zone cn-local-a",
        "A system disk of 4096 GiB is more than the 2048 GiB of cloud_essd in zone cn-local-a",
    ]


def test_all_instance_types_are_known_however_many_pages_they_are(
    backend: AlibabaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = backend._offer._stock.known_types
    known = types()
    assert known["ecs.g7.xlarge"] == InstanceType("ecs.g7", 4, 16.0)
    monkeypatch.setattr(stock, "_PAGE", 2)
    assert types() == known


def test_nearest_is_by_what_they_can_do() -> None:
    known = {
        "big": InstanceType("x", 64, 256.0),
        "other": InstanceType("y", 4, 16.0),
        "same": InstanceType("x", 4, 16.0),
        "wanted": InstanceType("x", 4, 16.0),
        "small": InstanceType("x", 2, 8.0),
    }
    assert nearest_types("wanted", {"big", "other", "same", "small"}, known) == ["same", "other", "small"]
    assert nearest_types("wanted", set(), known) == []
    assert nearest_types("smal", {"big", "small"}, known)[0] == "small"
    some = Sizes(20, 100)
    assert nearest_categories("cloud_essd", {"cloud": some, "cloud_ssd": some, "cloud_auto": some, "new": some}) == [
        "new",
        "cloud_auto",
        "cloud_ssd",
        "cloud",
    ]


@pytest.mark.parametrize(
    ("spec", "made"),
    [
        (VolumeSpec(1, "cloud_essd", "PL0"), 1),
        (VolumeSpec(1, "cloud_essd"), 20),
        (VolumeSpec(21, "cloud_essd", "PL1"), 21),
        (VolumeSpec(1, "cloud_essd", "PL2"), 461),
        (VolumeSpec(3, "cloud_essd_entry"), 10),
        (VolumeSpec(3, "cloud_auto"), 3),
    ],
)
def test_a_volume_is_as_large_as_its_category_needs(
    backend: AlibabaBackend, run: Run, spec: VolumeSpec, made: int
) -> None:
    volume = backend.create_volume(run(Role.REPLICA, "x"), spec)
    assert volume.size_gib == made
    backend.delete(volume)


def test_a_clone_is_as_large_as_its_snapshot(backend: AlibabaBackend, run: Run, used_volume: Resource) -> None:
    backend.resize(used_volume.id, 2)
    snapshot = ready(backend, backend.snapshot(used_volume.id, run(Role.REPLICA, "data", 1)))
    assert backend.clone(snapshot, run(Role.CLONE, "x"), SMALL).size_gib == 2


def test_resize_grows_free_and_attached_volumes_and_is_idempotent(
    backend: AlibabaBackend, world: World, run: Run, gateway: Resource
) -> None:
    volume = backend.create_volume(run(Role.REPLICA, "x"), SMALL)
    for size in (2, 2):
        assert backend.resize(volume.id, size).size_gib == size
    backend.attach(volume.id, gateway.id)
    for size in (3, 3):
        assert backend.resize(volume.id, size).size_gib == size
    serial = volume.id.removeprefix("d-")
    device = world.state / "instances" / gateway.id / "devices" / f"virtio-{serial}"
    assert device.stat().st_size == 3 << 30
    with pytest.raises(InvalidRequest, match="has 3 GiB already, more than 2"):
        backend.resize(volume.id, 2)
    backend.detach(volume.id)


def test_two_that_resize_at_once_get_what_they_want(backend: AlibabaBackend, world: World, run: Run) -> None:
    """The second is refused, as the volume has that size: the list did not show it yet."""
    volume = backend.create_volume(run(Role.REPLICA, "x"), SMALL)
    world.cloud.faults.add(
        [Rule.model_validate({"fault": {"kind": "stale", "seconds": 0.6}, "action": "DescribeDisks"})]
    )
    try:
        world.ecs.call("resize_disk", disk_id=volume.id, new_size=2)
        assert backend.resize(volume.id, 2).size_gib == 2
    finally:
        world.cloud.faults.reset()


def test_the_last_snapshots_of_each_disk_stay(
    backend: AlibabaBackend, world: World, run: Run, gateway: Resource, used_volume: Resource
) -> None:
    other = backend.create_volume(run(Role.REPLICA, "other"), SMALL)
    backend.attach(other.id, gateway.id)
    backend.detach(other.id)
    made = {
        (disk, generation): ready(backend, backend.snapshot(volume, run(Role.REPLICA, disk, generation)))
        for disk, volume, last in (("data", used_volume.id, 11), ("other", other.id, 2))
        for generation in range(1, last + 1)
    }
    # Of another run, with the same disk.
    stranger = Labels("wave", "web", uuid.uuid4().hex[:8], Role.REPLICA, "data", 1)
    foreign = ready(backend, backend.snapshot(used_volume.id, stranger))
    image = ready(backend, backend.create_image(run(Role.PREPARED, generation=2), [made["data", 2]]))
    clone = backend.clone(made["data", 3], run(Role.CLONE, "data", 3), SMALL)
    deleted = backend.prune_snapshots(run(Role.REPLICA), 3)
    # As numbers: the 9th, 10th and 11th stay; the 2nd is the image's; what was made from the 3rd needs it no more.
    assert {each.id for each in deleted} == {made["data", n].id for n in (1, 3, 4, 5, 6, 7, 8)}
    for each in deleted:
        gone(backend, each)
    kept = {each.id for each in backend.list(run(Role.REPLICA), Kind.SNAPSHOT)}
    assert kept == {made[key].id for key in [("data", n) for n in (2, 9, 10, 11)] + [("other", 1), ("other", 2)]}
    assert backend.get(Kind.SNAPSHOT, foreign.id).state is State.READY
    assert backend.get(Kind.VOLUME, clone.id).state is State.READY
    assert backend.prune_snapshots(run(Role.REPLICA), 3) == []
    backend.delete(image)
    gone(backend, image)
    assert [each.id for each in backend.prune_snapshots(run(Role.REPLICA), 3)] == [made["data", 2].id]
    with pytest.raises(InvalidRequest, match="0 snapshots"):
        backend.prune_snapshots(run(), 0)


def test_a_snapshot_that_a_volume_is_being_made_from_stays(
    backend: AlibabaBackend, world: World, run: Run, used_volume: Resource
) -> None:
    first, _ = (ready(backend, backend.snapshot(used_volume.id, run(Role.REPLICA, "data", n))) for n in (1, 2))
    clone = backend.clone(first, run(Role.CLONE, "data", 1), SMALL)

    def become(status: DiskStatus) -> None:
        with world.cloud.cloud.store.transaction() as tx:
            disk = tx.get(Disk, clone.id)
            assert disk is not None
            disk.status = status
            tx.put(disk)

    become(DiskStatus.CREATING)
    assert backend.prune_snapshots(run(Role.REPLICA), 1) == []
    become(DiskStatus.AVAILABLE)
    assert [each.id for each in backend.prune_snapshots(run(Role.REPLICA), 1)] == [first.id]


def test_what_failed_goes_and_what_is_under_way_stays(
    backend: AlibabaBackend, world: World, run: Run, used_volume: Resource
) -> None:
    made = [ready(backend, backend.snapshot(used_volume.id, run(Role.REPLICA, "data", n))) for n in (1, 2, 3)]
    with world.cloud.cloud.store.transaction() as tx:
        for resource, status in zip(made, (SnapshotStatus.PROGRESSING, SnapshotStatus.FAILED), strict=False):
            entity = tx.get(Snapshot, resource.id)
            assert entity is not None
            entity.status = status
            tx.put(entity)
    assert [each.id for each in backend.prune_snapshots(run(Role.REPLICA), 1)] == [made[1].id]
