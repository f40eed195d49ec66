"""The last partition and what it holds fill a larger disk: planned on tables, done to real disks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavelift.guest.appliance import launched
from wavelift.guest.evidence import Check
from wavelift.guest.facts import Devices, FileSystem, Layout
from wavelift.guest.volumes.gpt import repair
from wavelift.guest.volumes.grow import LVM, Growth, Partition, Table, grow, plan_growth

MIB = 1024 * 1024
BOOT = Partition(1, 2048, 4095, "ext4")


def table(*partitions: Partition, sectors: int = 40 * 2048, scheme: str = "gpt") -> Table:
    return Table(scheme, 512, sectors, partitions)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", LVM])
def test_the_last_one_grows(kind: str) -> None:
    planned = plan_growth(table(BOOT, Partition(2, 4096, 8191, kind)))
    assert planned == Growth(((2, 39 * 2048 - 1),), 2, kind)


def test_the_last_one_need_not_have_the_highest_number() -> None:
    planned = plan_growth(table(Partition(1, 8192, 9000, "xfs"), Partition(2, 2048, 8191, "swap")))
    assert isinstance(planned, Growth) and planned.partition == 1


def test_a_logical_partition_grows_with_the_extended_one() -> None:
    extended = Partition(2, 4096, 9000, "", extended=True)
    planned = plan_growth(table(BOOT, extended, Partition(5, 4098, 9000, "ext4"), scheme="msdos"))
    assert planned == Growth(((2, 39 * 2048 - 1), (5, 39 * 2048 - 1)), 5, "ext4")


def test_mbr_ends_at_two_tebibytes() -> None:
    planned = plan_growth(table(BOOT, sectors=2**33, scheme="msdos"))
    assert isinstance(planned, Growth) and 2**32 - 4096 < planned.ends[0][1] < 2**32


@pytest.mark.parametrize(
    ("partitions", "reason"),
    [
        ((), "no partition"),
        ((BOOT, Partition(2, 4096, 8191, "swap")), "number 2, is swap space"),
        ((BOOT, Partition(2, 4096, 8191, "crypto_LUKS")), "crypto_LUKS"),
        ((BOOT, Partition(2, 4096, 8191, "linux_raid_member")), "linux_raid_member"),
        ((BOOT, Partition(2, 4096, 8191, "")), "nothing"),
        ((BOOT, Partition(2, 5000, 8191, "", extended=True)), "extended one with nothing"),
    ],
)
def test_why_nothing_grows(partitions: tuple[Partition, ...], reason: str) -> None:
    planned = plan_growth(table(*partitions))
    assert isinstance(planned, str) and reason in planned


@given(st.integers(9000, 2**34), st.sampled_from([512, 4096]), st.sampled_from(["gpt", "msdos"]))
def test_nothing_shrinks_or_leaves_the_disk(sectors: int, sector: int, scheme: str) -> None:
    planned = plan_growth(Table(scheme, sector, sectors, (Partition(1, 2048, 8191, "ext4"),)))
    assert isinstance(planned, Growth)
    for _, end in planned.ends:
        assert 8191 < end < sectors - 34
        again = plan_growth(Table(scheme, sector, sectors, (Partition(1, 2048, end, "ext4"),)))
        assert isinstance(again, Growth) and again.ends == ()


def partition(handle: Any, scheme: str) -> None:
    handle.part_init("/dev/sda", scheme)
    handle.part_add("/dev/sda", "p", 2048, 20479)
    handle.part_add("/dev/sda", "p", 20480, -2048)


def ext4_on_gpt(handle: Any) -> FileSystem:
    partition(handle, "gpt")
    handle.mkfs("ext4", "/dev/sda2")
    return FileSystem("/dev/sda2", "ext4", "", (0, 2))


def btrfs_on_gpt(handle: Any) -> FileSystem:
    partition(handle, "gpt")
    handle.mkfs("btrfs", "/dev/sda2")
    return FileSystem("/dev/sda2", "btrfs", "", (0, 2))


def xfs_on_mbr(handle: Any) -> FileSystem:
    partition(handle, "mbr")
    handle.mkfs("xfs", "/dev/sda2")
    return FileSystem("/dev/sda2", "xfs", "", (0, 2))


def ext4_on_a_logical_one(handle: Any) -> FileSystem:
    handle.part_init("/dev/sda", "mbr")
    handle.part_add("/dev/sda", "e", 2048, -2048)
    handle.part_add("/dev/sda", "l", 4096, -2048)
    handle.mkfs("ext4", "/dev/sda5")
    return FileSystem("/dev/sda5", "ext4", "", (0, 5))


def xfs_on_lvm(handle: Any) -> FileSystem:
    partition(handle, "gpt")
    handle.pvcreate("/dev/sda2")
    handle.vgcreate("group", ["/dev/sda2"])
    handle.lvcreate_free("root", "group", 80)
    handle.lvcreate_free("other", "group", 100)
    handle.mkfs("xfs", "/dev/group/root")
    return FileSystem("/dev/group/root", "xfs", "")


@pytest.mark.matrix  # two appliances each
@pytest.mark.machine
@pytest.mark.parametrize("make", [ext4_on_gpt, xfs_on_mbr, xfs_on_lvm, ext4_on_a_logical_one, btrfs_on_gpt])
def test_a_real_disk_grows(tmp_path: Path, make: Callable[[Any], FileSystem]) -> None:
    disk = tmp_path / "disk.img"
    with disk.open("wb") as image:
        image.truncate(640 * MIB)
    with launched([disk]) as appliance:
        handle = appliance.handle
        root = make(handle)
        handle.mount(root.device, "/")
        handle.fill_pattern("wavelift", 8 * MIB, "/content")
        content, size = handle.checksum("sha256", "/content"), blocks(handle)
        handle.umount_all()
    with disk.open("r+b") as image:
        image.truncate(1024 * MIB)
    repair(disk)
    with launched([disk]) as appliance:
        handle = appliance.handle
        layout = Layout(root, {"/": root}, Devices({}))
        done = grow(appliance, layout)
        assert isinstance(done, Check) and "MiB, now 1" in done.evidence, done
        handle.mount(root.device, "/")
        assert handle.checksum("sha256", "/content") == content
        assert blocks(handle) - size > 350 * MIB
        handle.umount_all()
        again = grow(appliance, layout)
        assert isinstance(again, Check) and "as before" in again.evidence
    assert repair(disk) is None


def blocks(handle: Any) -> int:
    space = handle.statvfs("/")
    size: int = space["blocks"] * space["frsize"]
    return size
