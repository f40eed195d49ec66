"""Which way an account has to a machine, and what a donor is: by the real SDK against two kinds of account."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from storage_backends.alibaba.backend import AlibabaBackend
from storage_backends.base import Firmware, ImageStrategy, InstanceSpec, Kind, Labels, Resource, Role, State
from storage_backends.errors import InvalidRequest, NotFound
from tests.localcloud.conftest import KEY, SECRET, Ecs
from tests.storage_backends.conftest import HOST, SMALL, World, gone, ready
from wavelift.localcloud.entities import Image
from wavelift.localcloud.model.context import Options
from wavelift.localcloud.server import LocalCloud

SPEC = InstanceSpec("", "ecs.g7.large", "vsw-local-a", "sg-local-default", "cloud_essd", 20, "PL0", public_ip=True)


@pytest.fixture(scope="module")
def strict(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An account that may make no system disk of a data disk's snapshot."""
    state = tmp_path_factory.mktemp("strict")
    options = Options(host_instances=True, data_snapshot_images=False, grace=1.0)
    with LocalCloud(state, {KEY: SECRET}, options) as cloud:
        yield World(cloud, state, Ecs(cloud.endpoint), {**world.extra, "endpoint": cloud.endpoint})


def labels(role: Role, disk: str | None = None) -> Labels:
    return Labels("wave", "web", uuid.uuid4().hex[:8], role, disk)


def snapshot_of_a_data_disk(world: World) -> Resource:
    backend = world.backend()
    host = ready(backend, backend.run_instance(labels(Role.TARGET), HOST))
    volume = backend.create_volume(labels(Role.REPLICA, "data"), SMALL)
    backend.attach(volume.id, host.id)
    return ready(backend, backend.snapshot(volume.id, labels(Role.REPLICA, "data")))


@pytest.fixture(scope="module")
def image(strict: World) -> str:
    """Of an instance's own system disk, which every account may do."""
    backend = strict.backend()
    host = ready(backend, backend.run_instance(labels(Role.TARGET), replace(HOST, system_gib=1)))
    (system,) = backend.disks_of(host.id)
    snapshot = ready(backend, backend.snapshot(system.id, labels(Role.PREPARED, "system")))
    return ready(backend, backend.create_image(labels(Role.PREPARED), [snapshot])).id


def test_what_the_account_may_do_is_found_out_once_there_is_something_to_try_it_with(strict: World) -> None:
    backend = strict.backend()
    assert backend.image_strategy() is None
    snapshot_of_a_data_disk(strict)
    assert backend.image_strategy() is ImageStrategy.DONOR
    images = strict.ecs.call("describe_images", image_owner_alias="self", status="Creating,Available")["Images"][
        "Image"
    ]
    assert not [each for each in images if "dry-run" in each["ImageName"]]


def test_another_account_may(world: World, used_volume: Resource, backend: AlibabaBackend) -> None:
    ready(backend, backend.snapshot(used_volume.id, labels(Role.REPLICA, "data")))
    assert backend.image_strategy() is ImageStrategy.DEVICE_MAPPING


def test_the_connection_may_say_it(world: World) -> None:
    assert world.backend(image_strategy="donor").image_strategy() is ImageStrategy.DONOR
    with pytest.raises(InvalidRequest, match=r"image_strategy \(extra\) is 'magic'"):
        world.backend(image_strategy="magic")


def test_what_stands_against_a_donor_is_told_beforehand(strict: World, image: str) -> None:
    backend = strict.backend(image_strategy="donor")
    (reason,) = backend.check_target(SPEC)
    assert "names no donor_image" in reason
    (reason,) = strict.backend(donor_image="m-none").check_target(SPEC)
    assert "Donor image m-none does not exist in cn-local" in reason
    assert list(strict.backend(donor_image=image).check_target(SPEC)) == []
    with strict.cloud.cloud.store.transaction() as tx:
        entity = tx.get(Image, image)
        assert entity is not None
        entity.boot_mode = "UEFI"
        tx.put(entity)
    try:
        (reason,) = strict.backend(donor_image=image).check_target(SPEC)
        assert f"Donor image {image} boots by UEFI" in reason
    finally:
        with strict.cloud.cloud.store.transaction() as tx:
            entity.boot_mode = "BIOS"
            tx.put(entity)


def test_a_donors_disk_goes_to_another_instance_and_comes_home(strict: World, image: str) -> None:
    backend = strict.backend(donor_image=image)
    order = labels(Role.TARGET)
    donor = backend.create_donor(order, SPEC)
    assert backend.create_donor(order, SPEC).id == donor.id and donor.state is State.STOPPED
    shown = strict.ecs.instance(donor.id)
    assert shown["PublicIpAddress"]["IpAddress"] and shown["StartTime"] == ""
    disk = backend.donor_disk(donor, order)
    assert (disk.size_gib, disk.attached_to) == (20, donor.id)
    # As large as its image at least.
    assert backend.donor_disk(donor, order).id == disk.id
    host = ready(backend, backend.run_instance(labels(Role.TARGET), HOST))
    for _ in range(2):
        backend.detach(disk.id)
        backend.attach(disk.id, host.id)
        assert backend.donor_disk(donor, order).attached_to == host.id
        backend.detach(disk.id)
        for _ in range(2):
            backend.attach(disk.id, donor.id, bootable=True)
        assert backend.donor_disk(donor, order).attached_to == donor.id
    data = backend.create_volume(labels(Role.CLONE, "data"), SMALL)
    backend.attach(data.id, donor.id)
    backend.give(data.id)
    assert [each.id for each in backend.disks_of(donor.id)] == [disk.id, data.id]
    backend.start_instance(donor.id)
    backend.start_instance(donor.id)
    backend.delete(donor)
    gone(backend, donor)
    with pytest.raises(NotFound):
        backend.get(Kind.VOLUME, data.id)


def test_a_donor_without_an_image_is_no_donor(strict: World) -> None:
    with pytest.raises(NotFound, match="Name an image as donor_image"):
        strict.backend().create_donor(labels(Role.TARGET), SPEC)


@pytest.mark.parametrize("firmware", list(Firmware))
def test_an_image_boots_as_what_is_on_it_does(strict: World, firmware: Firmware) -> None:
    backend = strict.backend()
    host = ready(backend, backend.run_instance(labels(Role.TARGET), replace(HOST, system_gib=1)))
    (system,) = backend.disks_of(host.id)
    snapshot = ready(backend, backend.snapshot(system.id, labels(Role.PREPARED, "system")))
    made = ready(backend, backend.create_image(labels(Role.PREPARED), [snapshot], firmware))
    (image,) = strict.ecs.call("describe_images", image_id=made.id)["Images"]["Image"]
    assert image["BootMode"] == firmware.name
